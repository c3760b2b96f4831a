"""How good an Inductor is: accuracy, confusion, calibration, paraphrases, durations (Tab. 4 and 6 of the paper).

What its confidence is worth off home ground is in :mod:`tam_plugin.inductor.off_home`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tam_plugin.inductor.dataset import LabelledQuery, slip
from tam_plugin.inductor.model import Inductor
from tam_plugin.taxonomy import NUM_TASK_TYPES, Sensitivity, TaskDistribution, TaskType


def evaluate(inductor: Inductor, rows: Sequence[LabelledQuery], *, with_options: bool = True) -> dict[str, Any]:
    """Classify labelled queries and score the answers with :func:`score`."""
    return score(classify(inductor, rows, with_options=with_options), rows)


def classify(inductor: Inductor, rows: Sequence[LabelledQuery], *, with_options: bool = True) -> list[TaskDistribution]:
    """The distribution of each row's question."""
    return inductor.classify_batch(
        [row.question for row in rows],
        [row.duration_s or None for row in rows],
        [row.options if with_options else None for row in rows],
    )


def score(predicted: Sequence[TaskDistribution], rows: Sequence[LabelledQuery]) -> dict[str, Any]:
    """Figures of predictions against labels.

    Returns:
        ``accuracy``; ``accuracy_label2`` (a second valid label counts too); ``group_accuracy`` and
        ``group_accuracy_label2``, the same of the sensitivity group (App. A.2), which decides the budget; a task type
        beyond the eight is a group of its own;
        ``macro_f1`` over the task types that occur; ``recall`` by task type (None where it does not occur);
        ``confusion`` ``[N][N]``, rows are labels, N = 8, or the highest index among labels and predictions if that is
        above 8; ``ece`` with ten equal buckets; ``buckets``: count, accuracy and mean confidence by confidence in steps
        of 0.2.
    """
    found = [distribution.decided_task.index for distribution in predicted]
    types = max([NUM_TASK_TYPES, *found, *(row.label for row in rows)])
    confusion = [[0] * types for _ in range(types)]
    right, right2, groups = [], 0, [0, 0]
    for index, row in zip(found, rows, strict=True):
        confusion[row.label - 1][index - 1] += 1
        right.append(index == row.label)
        right2 += index in (row.label, row.label2)
        valid = [_group(label) for label in (row.label, row.label2) if label]
        groups[0] += _group(index) == valid[0]
        groups[1] += _group(index) in valid
    confidence = [distribution.decided_confidence for distribution in predicted]
    recall = [row[i] / sum(row) if sum(row) else None for i, row in enumerate(confusion)]
    return {
        "count": len(rows),
        "accuracy": sum(right) / len(rows),
        "accuracy_label2": right2 / len(rows),
        "group_accuracy": groups[0] / len(rows),
        "group_accuracy_label2": groups[1] / len(rows),
        "macro_f1": _macro_f1(confusion),
        "recall": recall,
        "confusion": confusion,
        "ece": _ece(confidence, right),
        "buckets": [b for b in _buckets(confidence, right, 5) if b["count"]],
    }


def _group(index: int) -> Sensitivity | int:
    return TaskType(index).sensitivity if index <= NUM_TASK_TYPES else index


def _macro_f1(confusion: list[list[int]]) -> float:
    scores = []
    for i, row in enumerate(confusion):
        predicted = sum(other[i] for other in confusion)
        if sum(row):
            scores.append(2 * row[i] / (sum(row) + predicted))
    return sum(scores) / len(scores)


def _buckets(confidence: Sequence[float], right: Sequence[bool], count: int) -> list[dict[str, Any]]:
    members: list[list[int]] = [[] for _ in range(count)]
    for i, value in enumerate(confidence):
        members[min(count - 1, int(value * count))].append(i)
    return [
        {
            "range": [b / count, (b + 1) / count],
            "count": len(inside),
            "accuracy": sum(right[i] for i in inside) / max(1, len(inside)),
            "confidence": sum(confidence[i] for i in inside) / max(1, len(inside)),
        }
        for b, inside in enumerate(members)
    ]


def _ece(confidence: Sequence[float], right: Sequence[bool]) -> float:
    gaps = (abs(b["accuracy"] - b["confidence"]) * b["count"] for b in _buckets(confidence, right, 10))
    return sum(gaps) / len(right)


DURATIONS_S = (None, 5.0, 60.0, 600.0, 7200.0)
"""Lengths that :func:`duration_robustness` tries: unknown, and one of each class, and hours."""


def duration_robustness(inductor: Inductor, rows: Sequence[LabelledQuery]) -> dict[str, Any]:
    """The same queries with other durations: the length matters to the budget, rarely to the type.

    Returns:
        ``durations_s``; ``accuracy`` at each; ``changed``: share of queries whose type is not the same at all of
        them; ``largest_shift``: largest change of a query's probability of any type.
    """
    by_duration = [classify(inductor, [replace(row, duration_s=None) for row in rows])]
    for duration_s in DURATIONS_S[1:]:
        if not getattr(inductor, "use_duration", True):  # it reads the same text whatever the length
            by_duration.append(by_duration[0])
            continue
        by_duration.append(classify(inductor, [replace(row, duration_s=duration_s) for row in rows]))
    types = list(zip(*[[d.decided_task.index for d in found] for found in by_duration], strict=True))
    shifts = [
        max(abs(a - b) for a, b in zip(first.probabilities, other.probabilities, strict=True))
        for found in by_duration[1:]
        for first, other in zip(by_duration[0], found, strict=True)
    ]
    return {
        "durations_s": list(DURATIONS_S),
        "accuracy": [score(found, rows)["accuracy"] for found in by_duration],
        "changed": sum(len(set(seen)) > 1 for seen in types) / len(rows),
        "largest_shift": max(shifts),
    }


def paraphrase_drop(inductor: Inductor, rows: Sequence[LabelledQuery]) -> dict[str, Any] | None:
    """Accuracy on questions and on their paraphrases (Tab. 4b), of the rows that have one; None if none has.

    Returns:
        ``count``, ``accuracy`` and ``accuracy_paraphrased``, the same counting second labels (``…_label2``), and
        ``same_type``: share of pairs that get the same type.
    """
    pairs = [row for row in rows if row.paraphrase]
    if not pairs:
        return None
    before = classify(inductor, pairs)
    after = classify(inductor, [replace(row, question=row.paraphrase or "") for row in pairs])
    first, second = score(before, pairs), score(after, pairs)
    return {
        "count": len(pairs),
        "accuracy": first["accuracy"],
        "accuracy_paraphrased": second["accuracy"],
        "accuracy_label2": first["accuracy_label2"],
        "accuracy_paraphrased_label2": second["accuracy_label2"],
        "same_type": sum(a.decided_task == b.decided_task for a, b in zip(before, after, strict=True)) / len(pairs),
    }


def by_part(
    found: Sequence[TaskDistribution], rows: Sequence[LabelledQuery], name: str
) -> dict[str, dict[str, Any]] | None:
    """:func:`score` of the rows of each value of a field (``dataset``, ``language``); None where there is but one."""
    parts: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        parts.setdefault(getattr(row, name), []).append(i)
    if len(parts) < 2:
        return None
    return {part: score([found[i] for i in of], [rows[i] for i in of]) for part, of in sorted(parts.items())}


def typo_drop(
    inductor: Inductor,
    rows: Sequence[LabelledQuery],
    found: Sequence[TaskDistribution],
    slips: int = 2,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on questions with slips of typing.

    Args:
        inductor: the Inductor.
        rows: the questions.
        found: what it says of them as they are.
        slips: letters swapped, doubled or lost in each question of at least eight characters.
        seed: of their places.

    Returns:
        ``accuracy_typos`` and ``accuracy_typos_label2``, and ``same_type``: share that keeps its type.
    """
    rng = random.Random(seed)
    typed = []
    for row in rows:
        text = row.question
        for _ in range(slips):
            text = slip(text, rng)
        typed.append(replace(row, question=text))
    after = classify(inductor, typed)
    figures = score(after, rows)
    return {
        "accuracy_typos": figures["accuracy"],
        "accuracy_typos_label2": figures["accuracy_label2"],
        "same_type": sum(a.decided_task == b.decided_task for a, b in zip(found, after, strict=True)) / len(rows),
    }
