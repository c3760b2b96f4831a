"""Agreement of two taggers on the same queries: raw, with second labels, Cohen's kappa, confusion, disagreements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.inductor.data.records import Record, UniqueIds, read_records
from tam_plugin.taxonomy import NUM_TASK_TYPES


@dataclass
class Comparison:
    """Two taggers side by side.

    Attributes:
        confusion: ``[8][8]`` queries by the first tagger's label (row) and the other's (column).
        agree_label2: queries on which the two sets {label, label2} share a task type.
        only_first, only_other: ids that one has and the other lacks.
        unlabelled: ids of both that at least one has not labelled.
        disagreements: queries with different first labels, in the first one's order: the two records.
    """

    confusion: list[list[int]] = field(default_factory=lambda: [[0] * NUM_TASK_TYPES for _ in range(NUM_TASK_TYPES)])
    agree_label2: int = 0
    only_first: int = 0
    only_other: int = 0
    unlabelled: int = 0
    disagreements: list[tuple[Record, Record]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Queries that both have labelled."""
        return sum(map(sum, self.confusion))

    @property
    def agreement(self) -> float:
        """Share of the queries with the same first label."""
        return sum(self.confusion[i][i] for i in range(NUM_TASK_TYPES)) / self.count

    @property
    def agreement_label2(self) -> float:
        """Share of the queries on which one of the labels is the same."""
        return self.agree_label2 / self.count

    @property
    def kappa(self) -> float | None:
        """Cohen's kappa of the first labels; None where both gave one and the same label throughout."""
        rows = [sum(row) for row in self.confusion]
        columns = [sum(column) for column in zip(*self.confusion, strict=True)]
        by_chance = sum(r * c for r, c in zip(rows, columns, strict=True)) / self.count**2
        return (self.agreement - by_chance) / (1 - by_chance) if by_chance < 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the disagreements as :func:`disagreement` gives them."""
        return {
            "compared": self.count,
            "agreement": self.agreement,
            "agreement_label2": self.agreement_label2,
            "kappa": self.kappa,
            "only_first": self.only_first,
            "only_other": self.only_other,
            "unlabelled": self.unlabelled,
            "confusion": self.confusion,
            "disagreements": [disagreement(first, other) for first, other in self.disagreements],
        }


def compare(paths: Sequence[str | Path], other: str | Path) -> Comparison:
    """Compare the labels of ``paths`` (the first tagger) with those of ``other``, by id.

    The records of ``paths`` are held in memory.

    Raises:
        InputError: a file is missing, empty or malformed, an id comes twice, the two hold different questions under
            one id, or no query has labels of both.
    """
    ids = UniqueIds()
    first = {record.id: record for path in paths for record, _, _ in read_records(path, ids)}
    done = Comparison()
    order = {name: place for place, name in enumerate(first)}
    met = 0
    for record, number, _ in read_records(other):
        mine = first.get(record.id)
        if mine is None:
            done.only_other += 1
            continue
        met += 1
        if mine.question != record.question:
            raise InputError(
                f"{other}:{number}: the id {record.id!r} has the question {record.question[:60]!r} here and "
                f"{mine.question[:60]!r} in the first file; compare two labellings of the same queries"
            )
        _count(done, mine, record)
    done.only_first = len(first) - met
    if not done.count:
        raise InputError(
            f"{str(other)!r} and {', '.join(map(str, paths))} have no labelled query in common "
            f"({met} common ids, {done.unlabelled} of them without a label)"
        )
    done.disagreements.sort(key=lambda pair: order[pair[0].id])
    return done


def _count(done: Comparison, mine: Record, other: Record) -> None:
    if mine.label is None or other.label is None:
        done.unlabelled += 1
        return
    done.confusion[mine.label - 1][other.label - 1] += 1
    done.agree_label2 += bool(({mine.label, mine.label2} & {other.label, other.label2}) - {None})
    if mine.label != other.label:
        done.disagreements.append((mine, other))


def disagreement(first: Record, other: Record) -> dict[str, Any]:
    """One disagreement as plain values."""
    return {
        "id": first.id,
        "question": first.question,
        "options": list(first.options) if first.options else None,
        "dataset": first.dataset,
        "label": first.label,
        "label2": first.label2,
        "other_label": other.label,
        "other_label2": other.label2,
    }
