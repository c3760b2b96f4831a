"""The parts of a report on answers; one whose data is absent says which file was missing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from tam_plugin.eval.report import accuracy, figures
from tam_plugin.eval.report.costs import ablation_of, policy_name
from tam_plugin.eval.report.document import Block, Figure, Heading, Items, Link, Paragraph, Table
from tam_plugin.eval.report.names import CONFIDENCE, NO_LOG, RADAR, in_order, title
from tam_plugin.eval.report.runs import Run


def scores(run: Run, baseline: Run | None) -> list[Block]:
    """lmms-eval's own figures of each task."""
    runs = [run, *([baseline] if baseline else [])]
    rows = []
    for task in dict.fromkeys(task for one in runs for task in one.scores):
        names = dict.fromkeys(
            name for one in runs for name in one.scores.get(task, {}) if name != "alias" and "_stderr" not in name
        )
        for name in names:
            figures_ = [_figure(one.scores.get(task, {}).get(name)) for one in runs]
            counts = [str(one.counts.get(task, "-")) for one in runs]
            rows.append([task, name, *(value for pair in zip(figures_, counts, strict=True) for value in pair)])
    heads = ["task", "metric,filter", *(head for one in runs for head in (one.name, f"samples, {one.name}"))]
    settings = [_settings(one) for one in runs]
    missing = [] if baseline else [Paragraph("No baseline: none was given (--baseline DIR).")]
    return [Heading("Scores"), Items(settings), Table(heads, rows), *missing]


def unanswered_rows(run: Run, baseline: Run | None) -> list[Block]:
    """Rows without an answer, by name."""
    blocks: list[Block] = [Heading("Samples without an answer")]
    for one in (run, *([baseline] if baseline else [])):
        found = accuracy.unanswered(one)
        source = "samples" if one.log is None else "sample log"
        total = sum(one.counts.values())
        blocks.append(Paragraph(f"{one.name}: {len(found)} of {total} samples have no answer ({source})."))
        if found:
            blocks.append(Items([f"task {task}, row {row}: {why}" for (task, row), why in sorted(found.items())]))
    return blocks


def confidence(run: Run, baseline: Run | None, folder: Path, inductor_report: str | None) -> list[Block]:
    """Accuracy by the Inductor's confidence (Tab. 4a)."""
    blocks: list[Block] = [Heading("Accuracy by the Inductor's confidence (Tab. 4a)")]
    runs = {one.name: accuracy.by_confidence(one, run) for one in (run, *([baseline] if baseline else []))}
    edges = [number / accuracy.BUCKETS for number in range(accuracy.BUCKETS + 1)]
    names = [f"{low:.1f}–{high:.1f}" for low, high in itertools.pairwise(edges)]
    if run.log is None:
        blocks.append(Paragraph(NO_LOG.format(run.name)))
    elif not any(a.count for a in runs[run.name]):
        blocks.append(Paragraph("Not shown: no row of the log has both a confidence and a score of its own."))
    else:
        rows = [[name, *(str(found[n]) for found in runs.values())] for n, name in enumerate(names)]
        blocks.append(Table(["confidence", *runs], rows))
        blocks.append(Paragraph("Buckets are those of the TAM run's confidence, for both; mean score (sum of rows)."))
        means = {name: [a.mean for a in found] for name, found in runs.items()}
        counts = [a.count for a in runs[run.name]]
        figures.bars(folder / CONFIDENCE, names, means, counts, "confidence of the Inductor")
        blocks.append(Figure(CONFIDENCE, "Accuracy by bucket of the Inductor's confidence"))
    text = "How often the Inductor itself is right (confusion, calibration) is in its own report:"
    blocks.append(Link(text, inductor_report) if inductor_report else Paragraph(f"{text} see tam inductor eval."))
    return blocks


def task_types(run: Run, baseline: Run | None, folder: Path) -> list[Block]:
    """Accuracy by task type (Fig. 6)."""
    blocks: list[Block] = [Heading("Accuracy by task type (Fig. 6)")]
    if run.log is None:
        return [*blocks, Paragraph(NO_LOG.format(run.name))]
    runs = {one.name: accuracy.by_task_type(one, run) for one in (run, *([baseline] if baseline else []))}
    labels = in_order(label for found in runs.values() for label in found)
    if not any(found.count for found in runs[run.name].values()):
        return [*blocks, Paragraph("Not shown: no row of the log has both a task type and a score of its own.")]
    rows = [[label, *(str(found.get(label, accuracy.NONE)) for found in runs.values())] for label in labels]
    series = {name: [found.get(label, accuracy.NONE).mean for label in labels] for name, found in runs.items()}
    counts = [runs[run.name].get(label, accuracy.NONE).count for label in labels]
    spokes = [f"{title(label)}\nn = {count}" for label, count in zip(labels, counts, strict=True)]
    figures.radar(folder / RADAR, spokes, series)
    text = "Task types are those that the TAM run's Inductor saw in the rows."
    return [
        *blocks,
        Table(["task type", *runs], rows),
        Paragraph(text),
        Figure(RADAR, "Accuracy by task type; the outer circle is the scale's end"),
    ]


def files(runs: Sequence[Run]) -> list[Block]:
    """What a reader must know of the files."""
    notes = [note for run in runs for note in run.notes]
    return [Heading("Notes on the files"), Items(notes)] if notes else []


def _settings(run: Run) -> str:
    ablation = ablation_of(run)
    named = "" if ablation is None else f", ablation {ablation.name} ({ablation.table}: {ablation.row})"
    return f"{run.name}: model {run.model}, policy {policy_name(run) or 'of the checkpoint'}{named}"


def _figure(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "-" if value is None else str(value)
