"""``tam inductor eval``: every figure of an Inductor as Markdown, JSON and pictures (Tab. 2a, 4a, 4b and 6)."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.inductor import off_home
from tam_plugin.inductor.data.records import read_lines
from tam_plugin.inductor.dataset import LabelledQuery, read_queries
from tam_plugin.inductor.evaluation import (
    by_part,
    classify,
    duration_robustness,
    paraphrase_drop,
    score,
    typo_drop,
)
from tam_plugin.inductor.model import Inductor
from tam_plugin.taxonomy import NUM_TASK_TYPES, AnyTask, TaskDistribution, TaskExtension, TaskType

Judged = tuple[TaskDistribution, AnyTask, float | None]
Cost = Callable[[Iterable[Judged]], dict[str, dict[str, float]]]
"""From what is said of questions, their true types and durations to figures by type, as ``budget.cost.bought``."""
EMBEDDED = "embedded"
TIMED_QUERIES = 100


def run(
    inductor: str | None,
    files: Sequence[str],
    out: str | None,
    compare: Sequence[str] = (),
    paraphrases: Sequence[str] = (),
    as_json: bool = False,
    cost: Cost | None = None,
) -> int:
    """Evaluate, print, and write ``report.md``, ``report.json`` and the figures if there is a folder for them.

    Args:
        inductor: checkpoint name or path; None or ``"embedded"`` for the one that ships.
        files: labelled queries, one JSON object a line; rows may carry a ``paraphrase``.
        out: folder of the report; None prints only.
        compare: further checkpoints that the first is set beside, on the first file.
        paraphrases: files of ``tam data paraphrase``, whose rows name their original in ``paraphrase_of``.
        as_json: print JSON instead of Markdown.
        cost: what is bought for the questions of each true task type; None leaves it out.

    Raises:
        InputError: a file or checkpoint cannot be read, or a paraphrase's original is in none of ``files``.
    """
    model = _load(inductor)
    extensions = model.extensions
    data = {path: read_queries(path, extensions) for path in files}
    pairs = _paraphrase_pairs(files, paraphrases, extensions)
    report: dict[str, Any] = {
        "inductor": inductor or EMBEDDED,
        "temperature": model.temperature,
        "extensions": {extension.label: extension.index for extension in extensions},
        "files": {},
    }
    for path, rows in data.items():
        print(f"tam inductor eval: {len(rows)} queries of {path}", file=sys.stderr)
        found = classify(model, rows)
        report["files"][Path(path).stem] = {
            **score(found, rows),
            "languages": by_part(found, rows, "language"),
            "sources": by_part(found, rows, "dataset"),
            "cost": None if cost is None else cost(_judged(found, rows, extensions)),
            "selective": off_home.selective(found, rows),
            "typos": typo_drop(model, rows, found),
            "paraphrases": paraphrase_drop(model, rows),
            "durations": duration_robustness(model, rows),
        }
        report.setdefault("off_home", off_home.detection(model, found, off_home.read_texts()))
    report["paraphrase_files"] = {name: paraphrase_drop(model, rows) for name, rows in pairs.items()}
    first = next(iter(data.values()))
    names = [inductor, *compare] if compare else []
    report["comparison"] = [compared(name, first, extensions) for name in names]
    text = describe(report)
    if out is not None:
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        (folder / "report.md").write_text(text, encoding="utf-8")
        from tam_plugin.inductor import figures

        for name, file in report["files"].items():
            figures.confusion(file["confusion"], _tasks(report, file), folder / f"confusion_{name}.png")
            figures.calibration(file["buckets"], folder / f"calibration_{name}.png")
    print(json.dumps(report) if as_json else text)
    return 0


def compared(
    name: str | None, rows: Sequence[LabelledQuery], extensions: Sequence[TaskExtension] = ()
) -> dict[str, Any]:
    """A checkpoint's accuracy, and the time it takes for 100 queries one by one (Tab. 2a).

    Args:
        name: its name or path.
        rows: labelled queries.
        extensions: what the indices beyond the eight in ``rows`` stand for; another extension is always wrong.
    """
    started = time.perf_counter()
    model = _load(name)
    loaded = time.perf_counter()
    asked = [rows[i % len(rows)] for i in range(TIMED_QUERIES)]
    model.classify("What is shown?")
    begun = time.perf_counter()
    for row in asked:
        model.classify(row.question, row.duration_s or None, row.options)
    taken = time.perf_counter() - begun
    figures = score([_renumbered(answer, extensions) for answer in classify(model, rows)], rows)
    return {
        "name": name or EMBEDDED,
        **{key: figures[key] for key in ("accuracy", "accuracy_label2", "macro_f1", "ece")},
        "seconds_per_100": taken,
        "load_seconds": loaded - started,
    }


def _renumbered(found: TaskDistribution, extensions: Sequence[TaskExtension]) -> TaskDistribution:
    """``found`` with the index that its extension has among ``extensions``, or one beyond all of them."""
    if found.extension is None:
        return found
    indices = {extension.label: extension.index for extension in extensions}
    index = indices.get(found.extension.label, max(indices.values(), default=NUM_TASK_TYPES) + 1)
    return replace(found, extension=replace(found.extension, index=index))


def _tasks(report: dict[str, Any], file: dict[str, Any]) -> list[tuple[int, str]]:
    """Index and label of each row of a file's confusion matrix; an index that no task type has gives an empty label."""
    labels = {task.index: task.label for task in TaskType}
    labels |= {index: label for label, index in report["extensions"].items()}
    return [(index, labels.get(index, "")) for index in range(1, len(file["confusion"]) + 1)]


def _load(name: str | None) -> Inductor:
    return Inductor.from_pretrained(None if name in (None, EMBEDDED) else name)


def _paraphrase_pairs(
    files: Sequence[str], paraphrases: Sequence[str], extensions: Sequence[TaskExtension]
) -> dict[str, list[LabelledQuery]]:
    """For each file of paraphrases: its originals, each with its paraphrase."""
    if not paraphrases:
        return {}
    originals = {row["id"]: labelled for path in files for row, labelled in _raw(path, extensions) if "id" in row}
    pairs: dict[str, list[LabelledQuery]] = {}
    for path in paraphrases:
        pairs[Path(path).stem] = rows = []
        for row, labelled in _raw(path, extensions):
            of = row.get("paraphrase_of")
            if of not in originals:
                raise InputError(
                    f"{path}: paraphrase_of = {of!r} is the id of no query in {', '.join(files)}; give the file of the "
                    "originals too"
                )
            rows.append(replace(originals[of], paraphrase=labelled.question))
    return pairs


def _raw(path: str, extensions: Sequence[TaskExtension]) -> list[tuple[dict[str, Any], LabelledQuery]]:
    labelled = read_queries(path, extensions)
    lines = [line for line in read_lines(path) if line.strip()]
    return list(zip(map(json.loads, lines), labelled, strict=True))


def describe(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    files = report["files"]
    out = [f"# Inductor: {report['inductor']}", "", f"Temperature {report['temperature']:g}.", ""]
    out += _table(
        ["queries", *_HEAD],
        [_figures(n, f) for n, f in files.items()],
    )
    for name, file in files.items():
        out += ["", f"## {name}", "", "Confusion (rows: label, columns: predicted, share of the row; Tab. 6):", ""]
        rows = []
        for (index, label), counts in zip(_tasks(report, file), file["confusion"], strict=True):
            total = sum(counts)
            rows.append([f"{index} {label}", total, *(f"{c / total:.0%}" if total else "–" for c in counts)])
        out += _table(["", "rows", *map(str, range(1, len(rows) + 1))], rows)
        out += ["", "By confidence (Tab. 4a):", ""]
        buckets = [[f"{b['range'][0]:.1f}–{b['range'][1]:.1f}" for b in file["buckets"]]]
        buckets += [[b["count"] for b in file["buckets"]], [f"{b['accuracy']:.2f}" for b in file["buckets"]]]
        buckets += [[f"{b['confidence']:.2f}" for b in file["buckets"]]]
        titles = ["confidence", "rows", "accuracy", "mean confidence"]
        table = [[title, *values] for title, values in zip(titles, buckets, strict=True)]
        out += _table(table[0], table[1:])
        out += _parts("By language:", file["languages"]) + _parts("By source:", file["sources"])
        out += _cost(file["cost"])
        out += _selective(file["selective"], file["typos"])
        out += _paraphrased(file["paraphrases"])
        durations = file["durations"]
        shown = ", ".join("unknown" if d is None else f"{d:g} s" for d in durations["durations_s"])
        out += [
            "",
            f"The same queries as if of videos of {shown}: {durations['changed']:.1%} change their type; the largest "
            f"change of a probability is {durations['largest_shift']:.3f}.",
        ]
    for name, figures in report["paraphrase_files"].items():
        out += ["", f"## {name}", *_paraphrased(figures)]
    out += _off_home(report["off_home"], next(iter(files)))
    if report["comparison"]:
        out += ["", "## Bases (Tab. 2a)", ""]
        head = ["Inductor", "accuracy", "with second labels", "macro-F1", "ECE", "seconds per 100", "seconds to load"]
        keys = ("accuracy", "accuracy_label2", "macro_f1", "ece")
        lines = [
            [r["name"], *(f"{r[k]:.3f}" for k in keys), f"{r['seconds_per_100']:.2f}", f"{r['load_seconds']:.2f}"]
            for r in report["comparison"]
        ]
        out += _table(head, lines)
    return "\n".join(out) + "\n"


_HEAD = ("rows", "accuracy", "with second labels", "sensitivity group", "with second labels", "macro-F1", "ECE")
_KEYS = ("accuracy", "accuracy_label2", "group_accuracy", "group_accuracy_label2", "macro_f1", "ece")


def _figures(name: str, figures: dict[str, Any]) -> list[Any]:
    return [name, figures["count"], *(f"{figures[key]:.3f}" for key in _KEYS)]


def _parts(title: str, parts: dict[str, dict[str, Any]] | None) -> list[str]:
    if parts is None:
        return []
    return ["", title, "", *_table(["", *_HEAD], [_figures(name, figures) for name, figures in parts.items()])]


def _judged(
    found: Sequence[TaskDistribution], rows: Sequence[LabelledQuery], extensions: Sequence[TaskExtension]
) -> list[Judged]:
    tasks: dict[int, AnyTask] = {task.index: task for task in (*TaskType, *extensions)}
    return [(f, tasks[row.label], row.duration_s or None) for f, row in zip(found, rows, strict=True)]


def _cost(figures: dict[str, dict[str, float]] | None) -> list[str]:
    if figures is None:
        return []
    head = ["true type", "rows", "frames", "if the type were known", "visual tokens", "if the type were known"]
    keys = ("frames", "frames_of_label", "visual_tokens", "visual_tokens_of_label")
    rows = [[label, f["count"], *(f"{f[key]:,.0f}" for key in keys)] for label, f in figures.items()]
    return ["", "What is bought, on average:", "", *_table(head, rows)]


def _selective(figures: dict[str, Any], typos: dict[str, float]) -> list[str]:
    kept = ", ".join(f"{accuracy:.3f} at {float(share):.0%}" for share, accuracy in figures["kept"].items())
    sign = "–" if figures["auroc"] is None else f"{figures['auroc']:.3f}"
    return [
        "",
        f"Accuracy with second labels if only the surest share is answered: {kept}. AUROC of the confidence as a sign "
        f"of a right answer: {sign}.",
        "",
        f"With two slips of typing in each question: accuracy {typos['accuracy_typos']:.3f}, with second labels "
        f"{typos['accuracy_typos_label2']:.3f}; {typos['same_type']:.1%} keep their type.",
    ]


def _off_home(kinds: dict[str, dict[str, Any]], home: str) -> list[str]:
    head = ["text", "rows", "AUROC", "mean confidence", "baseline's budget"]
    rows = [
        [kind, f["count"], f"{f['auroc']:.3f}", f"{f['confidence']:.2f}", f"{f['unknown']:.0%}"]
        for kind, f in kinds.items()
    ]
    return ["", f"## Texts that ask nothing about a video, against the questions of {home}", "", *_table(head, rows)]


def _paraphrased(figures: dict[str, Any] | None) -> list[str]:
    if figures is None:
        return []
    rows = [
        ["as asked", f"{figures['accuracy']:.3f}", f"{figures['accuracy_label2']:.3f}"],
        ["paraphrased", f"{figures['accuracy_paraphrased']:.3f}", f"{figures['accuracy_paraphrased_label2']:.3f}"],
    ]
    table = _table([f"{figures['count']} pairs", "accuracy", "with second labels"], rows)
    return ["", "In other words (Tab. 4b):", "", *table, "", f"{figures['same_type']:.1%} of the pairs get one type."]


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
