"""The page of one question: sections filled with escaped text, in one template."""

from __future__ import annotations

import os
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from tam_plugin.page.drawing import bars, heatmap, text, thumbnails
from tam_plugin.storage import replace_file
from tam_plugin.taxonomy import Sensitivity, length_class
from tam_plugin.video.sheet import clock

if TYPE_CHECKING:
    from tam_plugin.page.case import Case
    from tam_plugin.taxonomy import TaskDistribution

# The policy in the page's head lets a browser load nothing and run nothing, whatever stands in the texts.
_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { margin: 0 auto; max-width: 1180px; padding: 16px 24px; background: #ffffff; color: #14181f;
  font: 15px/1.45 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; print-color-adjust: exact; }
h1 { font-size: 24px; margin: 8px 0; }
h2 { font-size: 17px; margin: 26px 0 8px; border-bottom: 1px solid #8a94a3; padding-bottom: 3px; }
p { margin: 6px 0; }
h1, li, pre { white-space: pre-wrap; overflow-wrap: break-word; unicode-bidi: plaintext; }
.facts, figcaption, .note { color: #4a5361; font-size: 13px; }
.notice { border: 2px solid #14181f; padding: 8px 12px; margin: 12px 0; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: normal; padding: 3px 14px 3px 0; }
td { padding: 3px 10px; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.bars { width: 100%; } .bars th { width: 320px; } .bars tr { border-bottom: 3px solid #ffffff; }
.bars .number { width: 60px; }
.track { background: #eceff3; padding: 0; } .bar { background: #8a94a3; height: 16px; }
.chosen th, .chosen .number { font-weight: bold; } .chosen .bar { background: #102a52; }
.budget th[scope=col] { font-weight: bold; text-align: right; padding: 3px 10px; }
.budget tr { border-bottom: 1px solid #d5dae1; }
.frames figure { display: inline-block; margin: 0 8px 10px 0; vertical-align: top; }
.frames img { display: block; border: 1px solid #8a94a3; }
svg text { font-size: 12px; font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
pre { background: #f4f6f8; border-left: 4px solid #8a94a3; margin: 6px 0; padding: 8px 12px; font-size: 13px; }
pre.answer { border-color: #102a52; font-size: 15px; }
</style>
</head>
<body>
<h1>$query</h1>
$options
<p class="facts">$facts</p>
$notice
<h2>Answer</h2>
<pre class="answer" id="answer">$answer</pre>
<h2>Task type: $task</h2>
<p class="note">$task_note</p>
<table class="bars" id="probabilities">
$bars
</table>
$extension
<h2>Visual budget</h2>
<table class="budget" id="budget">
<tr><td></td><th scope="col">this question</th><th scope="col">fixed baseline</th><th scope="col">ratio</th></tr>
$budget
</table>
$budget_notes
<h2>$num_frames frames as decoded</h2>
<div class="frames" id="frames">
$frames
</div>
<h2>Expert use by layer</h2>
$experts
<h2>Prompt</h2>
<p class="note">$prompt_tokens tokens, of which $visual_tokens are the video's.</p>
<pre id="prompt">$prompt</pre>
</body>
</html>
""")

_GAINS = {
    Sensitivity.RESOLUTION: "Such questions gain from resolution: fewer, finer frames.",
    Sensitivity.BALANCED: "Such questions gain from frames and resolution alike.",
    Sensitivity.FRAMES: "Such questions gain from frames: more, coarser ones.",
}


def write_case(case: Case, path: str | os.PathLike[str]) -> Path:
    """Write the page of ``case``: one HTML file that needs nothing else, neither scripts nor a network.

    The page takes its place in one step: there is never a half-written one at ``path``.

    Args:
        case: the question.
        path: of the HTML file; its folder must exist.

    Returns:
        ``path``.

    Raises:
        InputError: the file cannot be written.
    """
    target = Path(path)
    page = render(case)
    with replace_file(target) as file:
        file.write(page)
    return target


def render(case: Case) -> str:
    """The whole page as HTML."""
    budget, distribution = case.budget, case.distribution
    return _PAGE.substitute(
        title=text(f"tam ask: {' '.join(case.query.split())[:80]}"),
        query=text(case.query.strip()),
        options=_options(case),
        facts=_facts(case),
        notice=f'<p class="notice" id="notice"><strong>Note:</strong> {text(case.notice)}.</p>' if case.notice else "",
        answer=_answer(case.answer),
        task=text(f"{distribution.decided_task.label} ({distribution.decided_confidence:.1%} sure)"),
        task_note=text(_task_note(distribution)),
        bars=bars(distribution.as_dict(), distribution.decided_task.label),
        extension=_extension(case),
        budget=_budget_rows(case),
        budget_notes="\n".join(f'<p class="note">{text(note)}</p>' for note in _budget_notes(case)),
        num_frames=len(case.video),
        frames=thumbnails(case.video),
        experts=_experts(case),
        prompt_tokens=f"{case.prompt_tokens:,}",
        visual_tokens=f"{budget.visual_tokens:,}",
        prompt=text(case.prompt),
    )


def _answer(answer: str | None) -> str:
    if answer is None:
        return "(none: the model does not know this video, as the note above says)"
    return text(answer) or "(the model ended at once: an empty answer)"


def _options(case: Case) -> str:
    if not case.options:
        return ""
    return f'<ol type="A" id="options">{"".join(f"<li>{text(option)}</li>" for option in case.options)}</ol>'


def _facts(case: Case) -> str:
    info = case.video.info
    model = "model: the demonstration model" if case.model is None else f"model: {case.model}"
    name = os.path.basename(os.path.normpath(info.path))
    length = f"{clock(info.duration_s, info.duration_s)} long ({length_class(info.duration_s)})"
    return text("  ·  ".join([name, length, f"{info.width} × {info.height}", f"{info.num_frames} frames", model]))


def _task_note(distribution: TaskDistribution) -> str:
    if distribution.extension is not None:
        return distribution.extension.description
    return f"{distribution.task.description} {_GAINS[distribution.task.sensitivity]}"


def _extension(case: Case) -> str:
    distribution = case.distribution
    if distribution.extension is None:
        return ""
    named = f"{distribution.extension.label} ({distribution.extension_probability:.1%})"
    found = f"A task type beyond the eight was found, {named}: its rule decides"
    return f'<p class="note">{text(found)}.</p>'


def _budget_rows(case: Case) -> str:
    rows = []
    for name, field, ratio in (
        ("frames", "num_frames", True),
        ("pooling stride", "pool_stride", False),
        ("tokens per frame", "tokens_per_frame", True),
        ("visual tokens", "visual_tokens", True),
    ):
        taken, fixed = getattr(case.budget, field), getattr(case.baseline, field)
        cells = [f"{taken:,}", f"{fixed:,}", f"× {taken / fixed:.2f}" if ratio else ""]
        columns = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{name}</th>{columns}</tr>')
    return "\n".join(rows)


def _budget_notes(case: Case) -> list[str]:
    notes = ["The fixed baseline takes the same for every question; a video that holds fewer frames gives all it has."]
    if case.budget.fallback:
        notes.append(f"Fallback: {case.budget.fallback}.")
    if case.context_tokens is not None and case.baseline.visual_tokens > case.context_tokens:
        notes.append(
            f"The baseline does not fit: this model's context leaves {case.context_tokens:,} visual tokens beside "
            "words and answer."
        )
    return notes


def _experts(case: Case) -> str:
    if case.expert_load is None or case.expert_weight is None:
        return '<p class="note">This model has no mixture layers.</p>'
    experts, most = len(case.expert_load[0]), 1 / case.top_k
    legend = (
        f"Share of a layer's assignments that each expert took, over all patches of all frames of this question; rows "
        f"sum to 100 %. Every patch takes {case.top_k} of {experts} experts: even use is {1 / experts:.1%} each, "
        f"and {most:.0%} (darkest) means that every patch took the expert."
    )
    if case.untrained:
        # Gates start at random, other ones in every run, and experts as copies of one MLP.
        legend += " Untrained weights, of which the note above tells, route by chance: the picture then says nothing."
    return f'<p class="note">{legend}</p>\n{heatmap(case.expert_load, case.expert_weight, most)}'
