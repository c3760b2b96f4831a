"""Counts and comparisons of queries as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tam_plugin.inductor.data.compare import Comparison
from tam_plugin.inductor.data.stats import Stats
from tam_plugin.taxonomy import TaskType

MOST_LISTED = 50
"""Disagreements that the Markdown lists; the JSON holds all."""


def stats_markdown(stats: Stats) -> str:
    """The class table by source, and the histograms of question length and video duration."""
    sources = stats.sources
    body = [(name, [stats.cells[label, source] for source in sources]) for name, label in stats.rows]
    body.append(("all", [sum(column) for column in zip(*(counts for _, counts in body), strict=True)]))
    rows = [[name, *counts, sum(counts), f"{100 * sum(counts) / stats.count:.1f} %"] for name, counts in body]
    values = stats.as_dict()
    words, seconds = values["question_words"], values["duration_s"]
    parts = [
        f"{stats.count} queries, {stats.with_options} with options, {stats.second} with a second label.",
        _table(["Task type", *sources, "all", "share"], rows),
        f"Words of a question: median {words['median']}, 95th percentile {words['p95']}, most {words['largest']}.",
        _table(["Words", "queries"], [[name, count] for name, count in words["histogram"].items()]),
    ]
    known = stats.count - seconds["unknown"]
    if known:
        parts.append(f"Duration of the video: median {seconds['median']} s, known for {known} queries.")
        histogram = [*seconds["histogram"].items(), ("not known", seconds["unknown"])]
        parts.append(_table(["Duration", "queries"], [[name, count] for name, count in histogram]))
    else:
        parts.append("No duration is known.")
    return "\n\n".join(parts) + "\n"


def comparison_markdown(comparison: Comparison) -> str:
    """Agreement, the confusion table and the disagreements."""
    kappa = comparison.kappa
    numbers = [str(task.index) for task in TaskType]
    confusion = [
        [f"{task.index} {task.label}", *comparison.confusion[task.index - 1], sum(comparison.confusion[task.index - 1])]
        for task in TaskType
    ]
    parts = [
        f"{comparison.count} queries labelled by both: agreement {comparison.agreement:.4f}, counting second labels "
        f"{comparison.agreement_label2:.4f}, Cohen's kappa {'not defined' if kappa is None else f'{kappa:.4f}'}.",
        f"Ids that only the first has: {comparison.only_first}; only the other: {comparison.only_other}; in both, not "
        f"labelled by both: {comparison.unlabelled}.",
        _table(["First (row), other (column)", *numbers, "all"], confusion),
        f"Disagreements: {len(comparison.disagreements)}.",
    ]
    listed = comparison.disagreements[:MOST_LISTED]
    if listed:
        rows = [[a.id, _labels(a), _labels(b), a.question] for a, b in listed]
        parts.append(_table(["Id", "first", "other", "question"], rows))
    if len(listed) < len(comparison.disagreements):
        parts.append(f"And {len(comparison.disagreements) - len(listed)} more: the JSON holds all.")
    return "\n\n".join(parts) + "\n"


def _labels(record: Any) -> str:
    return f"{record.label}" + (f" ({record.label2})" if record.label2 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table: text to the left, numbers to the right."""
    right = [not isinstance(value, str) or value.endswith(" %") for value in rows[0]]
    lines = [head, ["--:" if r else ":--" for r in right], *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
