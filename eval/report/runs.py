"""What an evaluation left in its folder: lmms-eval's results and samples, the sample log and the routing log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.eval.lmms.sample_log import read_log
from tam_plugin.eval.report.records import check_record
from tam_plugin.eval.report.samples import Sample, read_samples
from tam_plugin.files import read_json
from tam_plugin.storage import rank_of
from tam_plugin.training.curves import STATE

RESULTS = "_results.json"
Key = tuple[str, int]
"""What names a row: its task and its number."""


@dataclass(kw_only=True)
class Run:
    """One evaluation.

    Attributes:
        name: what the report calls it.
        folder: where it lies.
        model: lmms-eval's name of the model.
        arguments: its ``--model_args``.
        scores: lmms-eval's own figures, by task and ``metric,filter``.
        counts: number of rows, by task.
        samples: lmms-eval's samples.
        log: one line per request; None where there is no sample log.
        routing: one line per request; None where there is no routing log.
        training: folders with a trainer's state.
        notes: what a reader must know of the files.
    """

    name: str
    folder: Path
    model: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    samples: dict[Key, Sample] = field(default_factory=dict)
    log: list[dict[str, Any]] | None = None
    routing: list[dict[str, Any]] | None = None
    training: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def first_records(self) -> dict[Key, dict[str, Any]]:
        """The log's first request of each row."""
        records: dict[Key, dict[str, Any]] = {}
        for record in sorted(self.log or (), key=lambda record: record["index"]):
            records.setdefault((record["task"], record["doc_id"]), record)
        return records


def read_run(name: str, folder: str | Path) -> Run:
    """Read a results folder.

    Args:
        name: what the report calls it.
        folder: searched with everything below it; names of folders that begin with a dot are passed over.

    Raises:
        InputError: no such folder, no results in it, several logs of a kind, or a file that is not what its name says.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected the results folder of an evaluation")
    run = Run(name=name, folder=folder)
    files = sorted(f for f in folder.rglob("*") if f.is_file() and not _hidden(f.relative_to(folder)))
    results = sorted((f for f in files if f.name.endswith(RESULTS)), key=lambda file: file.name)
    if not results:
        raise InputError(f"{str(folder)!r} holds no *{RESULTS}: expected what lmms-eval writes to its --output_path")
    for file in results:
        _add_results(run, file)
    _add_logs(run, [f for f in files if f.suffix == ".jsonl" and "_samples_" not in f.name])
    run.training = [f.parent for f in files if f.name == STATE]
    return run


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _add_results(run: Run, file: Path) -> None:
    try:
        values = read_json(file, strict=False)
        config, results, counts = values["config"], values["results"], values["n-samples"]
        tasks = {task: dict(figures) for task, figures in results.items() if task in counts}
        effective = {task: int(counts[task]["effective"]) for task in tasks}
        model, arguments = str(config["model"]), _arguments(config["model_args"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise InputError(f"{str(file)!r} {problem}: expected a results file of lmms-eval") from error
    run.model, run.arguments = model, arguments
    for task, figures in tasks.items():
        if task in run.scores:  # files are read from the oldest to the newest
            run.notes.append(f"{run.name}: several results files hold task {task}; {file.name}, the newest, counts")
            run.samples = {key: sample for key, sample in run.samples.items() if key[0] != task}
        run.scores[task], run.counts[task] = figures, effective[task]
        path = file.with_name(f"{file.name.removesuffix(RESULTS)}_samples_{task}.jsonl")
        if not path.is_file():
            run.notes.append(f"{run.name}: {path.name} is missing; run lmms-eval with --log_samples")
            continue
        metrics = [name.partition(",")[0] for name in figures]
        found = read_samples(path, metrics)
        run.samples |= {(task, row): sample for row, sample in found.items()}
        if not any(sample.score is not None for sample in found.values()):
            run.notes.append(f"{run.name}: {path.name} holds no score of single rows: no accuracy of {task} below")


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    return {name: value for name, _, value in (part.partition("=") for part in str(given).split(",")) if name}


def _add_logs(run: Run, files: list[Path]) -> None:
    found: dict[str, Path] = {}
    for file in files:
        kind = _kind(file)
        if kind is None or _is_of_other_rank(file, files):
            continue
        if kind in found:
            raise InputError(
                f"{str(run.folder)!r} holds two {kind} logs, {found[kind].name} and {file.name}: expected one; give "
                "each evaluation a folder of its own"
            )
        found[kind] = file
    if "sample" in found:
        run.log = read_log(found["sample"])
        for record in run.log:
            check_record(record, found["sample"].name)
    if "routing" in found:
        run.routing = read_log(found["routing"])


def _is_of_other_rank(file: Path, files: list[Path]) -> bool:
    first, rank = rank_of(file)
    return rank > 0 and first in files


def _kind(file: Path) -> str | None:
    """``sample``, ``routing``, or None for a file of others."""
    try:
        with file.open("rb") as lines:
            first = lines.readline()
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    if not first.endswith(b"\n"):
        return None
    try:
        record = json.loads(first)
    except ValueError as error:
        raise InputError(f"{file}:1: not a JSON line") from error
    if not isinstance(record, dict) or not {"task", "split", "doc_id", "index"} <= set(record):
        return None
    return "routing" if "counts" in record else "sample"
