"""From results folders to a report's files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tam_plugin.errors import InputError, require
from tam_plugin.eval.report import resources, sections
from tam_plugin.eval.report.document import Block, Heading, Paragraph, to_html, to_markdown
from tam_plugin.eval.report.names import FIGURES
from tam_plugin.eval.report.runs import read_run
from tam_plugin.storage import move_files, part_folder

MARKDOWN, PAGE = "report.md", "report.html"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a report is made of.

    Attributes:
        results: results folder of the evaluation.
        out: folder of the report.
        baseline: results folder of the same tasks with the baseline.
        runs: name and results folder of further points of accuracy over FLOPs.
        training: name and output folder of training runs.
        model: checkpoint, or its config.json, whose sizes FLOPs are counted of; None reads each run's own.
        preset: published sizes in its place.
        note: a line that stands at the top.
        inductor_report: where the Inductor's own report lies, for the link.
    """

    results: str | Path
    out: str | Path
    baseline: str | Path | None = None
    runs: Sequence[tuple[str, str | Path]] = ()
    training: Sequence[tuple[str, str | Path]] = ()
    model: str | None = None
    preset: str | None = None
    note: str | None = None
    inductor_report: str | None = None


def make_report(request: Request) -> Path:
    """Write ``report.md``, its figures and ``report.html``; they appear once all are made.

    Returns:
        The Markdown file.

    Raises:
        InputError: a folder or file cannot be read, or ``out`` holds something else.
        MissingDependencyError: matplotlib is not there.
    """
    require("matplotlib", needed_for="drawing a report's figures", extra="plots")
    out = Path(request.out)
    _check_out(out)
    run = read_run("TAM", request.results)
    baseline = None if request.baseline is None else read_run("baseline", request.baseline)
    others = [read_run(name, folder) for name, folder in request.runs]
    made = part_folder(out)
    try:
        # What can be refused soonest comes first.
        losses = resources.losses([*request.training, *((f.name, f) for f in run.training)], made)
        blocks: list[Block] = [Heading("Evaluation report", 1)]
        if request.note:
            blocks.append(Paragraph(request.note))
        blocks += sections.scores(run, baseline)
        blocks += sections.unanswered_rows(run, baseline)
        blocks += sections.confidence(run, baseline, made, request.inductor_report)
        blocks += sections.task_types(run, baseline, made)
        blocks += resources.budgets(run, made, request.model, request.preset)
        everything = [run, *([baseline] if baseline else []), *others]
        blocks += resources.operations(everything, made, request.model, request.preset)
        blocks += resources.routing_of(run, made)
        blocks += losses
        blocks += sections.files(everything)
        (made / MARKDOWN).write_text(to_markdown(blocks), encoding="utf-8")
        (made / PAGE).write_text(to_html(blocks, made), encoding="utf-8")
        _put(made, out)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return out / MARKDOWN


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {str(out)!r} is a file: expected a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKDOWN).is_file():
        raise InputError(f"--out {str(out)!r} holds other files and no {MARKDOWN}: expected a new folder or a report's")


def _put(made: Path, out: Path) -> None:
    """The files under their names; figures of an earlier report that this one has not are taken away."""
    out.mkdir(exist_ok=True)
    names = {file.name for file in made.iterdir()}
    for name in FIGURES:
        if name not in names:
            (out / name).unlink(missing_ok=True)
    move_files(made, out, last=MARKDOWN)
