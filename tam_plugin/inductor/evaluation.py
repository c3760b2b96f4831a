"""How good an Inductor is: accuracy, recall by task type, confusion, calibration (Tab. 4a and 6 of the paper)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from tam_plugin.errors import TamError
from tam_plugin.inductor.dataset import LabelledQuery, read_queries
from tam_plugin.inductor.model import Inductor
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskDistribution


def evaluate(inductor: Inductor, rows: Sequence[LabelledQuery], *, with_options: bool = True) -> dict[str, Any]:
    """Classify labelled queries and score the answers with :func:`score`."""
    predicted = inductor.classify_batch(
        [row.question for row in rows],
        [row.duration_s or None for row in rows],
        [row.options if with_options else None for row in rows],
    )
    return score(predicted, rows)


def score(predicted: Sequence[TaskDistribution], rows: Sequence[LabelledQuery]) -> dict[str, Any]:
    """Figures of predictions against labels.

    Returns:
        ``accuracy``; ``accuracy_label2`` (a second valid label counts too); ``macro_f1`` over the task types that
        occur; ``recall`` by task type (None where it does not occur); ``confusion`` ``[8][8]``, rows are labels;
        ``ece`` with ten equal buckets; ``buckets``: count, accuracy and mean confidence by confidence in steps of 0.2.
    """
    confusion = [[0] * NUM_TASK_TYPES for _ in range(NUM_TASK_TYPES)]
    right, right2 = [], 0
    for distribution, row in zip(predicted, rows, strict=True):
        confusion[row.label - 1][distribution.task.index - 1] += 1
        right.append(distribution.task.index == row.label)
        right2 += distribution.task.index in (row.label, row.label2)
    confidence = [distribution.confidence for distribution in predicted]
    recall = [row[i] / sum(row) if sum(row) else None for i, row in enumerate(confusion)]
    return {
        "count": len(rows),
        "accuracy": sum(right) / len(rows),
        "accuracy_label2": right2 / len(rows),
        "macro_f1": _macro_f1(confusion),
        "recall": recall,
        "confusion": confusion,
        "ece": _ece(confidence, right),
        "buckets": [b for b in _buckets(confidence, right, 5) if b["count"]],
    }


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


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures of an Inductor on JSON-lines files as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tam_plugin.inductor.evaluation", description=main.__doc__)
    parser.add_argument("files", nargs="+", help="labelled queries, one JSON object a line")
    parser.add_argument("--model", help="an Inductor checkpoint; the embedded one when left out")
    parser.add_argument("--without-options", action="store_true", help="hide the answer options from the classifier")
    args = parser.parse_args(argv)
    try:
        inductor = Inductor.from_pretrained(args.model)
        for path in args.files:
            figures = evaluate(inductor, read_queries(path), with_options=not args.without_options)
            print(json.dumps({"file": path} | figures))
    except TamError as error:
        parser.exit(2, f"{error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
