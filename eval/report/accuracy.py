"""Accuracies by task, task type and confidence, from the samples and the sample log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from tam_plugin.eval.report.names import decided_label, in_order
from tam_plugin.eval.report.runs import Key, Run

BUCKETS = 5
"""Buckets of confidence, each of 0.2 (Tab. 4a)."""


@dataclass(frozen=True)
class Accuracy:
    """Mean score of some rows.

    Attributes:
        total: sum of the rows' scores.
        count: number of rows.
    """

    total: float
    count: int

    @property
    def mean(self) -> float:
        """Accuracy; NaN without rows."""
        return self.total / self.count if self.count else float("nan")

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.total:g} of {self.count})" if self.count else "no rows"


NONE = Accuracy(0.0, 0)
Group = TypeVar("Group", bound=Hashable)


def by_task(run: Run) -> dict[str, Accuracy]:
    """Accuracy of each task whose samples hold scores."""
    return _grouped(run, lambda key: key[0])


def mean_over_tasks(run: Run) -> float | None:
    """Mean of the tasks' accuracies; None where no sample holds a score."""
    means = [accuracy.mean for accuracy in by_task(run).values()]
    return sum(means) / len(means) if means else None


def by_task_type(run: Run, decided: Run) -> dict[str, Accuracy]:
    """Accuracy of ``run`` by the task type that ``decided`` saw in each row: the eight in order, then extensions."""
    found = _grouped(run, task_types(decided).get)
    return {label: found.get(label, NONE) for label in in_order(found)}


def by_confidence(run: Run, decided: Run) -> list[Accuracy]:
    """Accuracy of ``run`` by the confidence that ``decided`` had in each row, in steps of 0.2."""
    buckets = {
        key: min(BUCKETS - 1, int(record["confidence"] * BUCKETS))
        for key, record in decided.first_records().items()
        if record.get("confidence") is not None
    }
    found = _grouped(run, buckets.get)
    return [found.get(number, NONE) for number in range(BUCKETS)]


def task_types(run: Run) -> dict[Key, str]:
    """Label of the task type that decided each row."""
    labels = {key: decided_label(record) for key, record in run.first_records().items()}
    return {key: label for key, label in labels.items() if label}


def unanswered(run: Run) -> dict[Key, str]:
    """Rows without an answer, and why: as the sample log says, or the samples where there is none."""
    if run.log is None:
        return {key: sample.error for key, sample in run.samples.items() if sample.error is not None}
    return {(record["task"], record["doc_id"]): str(record["error"]) for record in run.log if record.get("error")}


def _grouped(run: Run, group: Callable[[Key], Group | None]) -> dict[Group, Accuracy]:
    scores: dict[Group, list[float]] = defaultdict(list)
    for key, sample in run.samples.items():
        name = group(key)
        if name is not None and sample.score is not None:
            scores[name].append(sample.score)
    return {name: Accuracy(sum(values), len(values)) for name, values in scores.items()}
