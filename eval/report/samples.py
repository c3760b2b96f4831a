"""lmms-eval's sample files: whether each row was right, in whatever form its task says so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.eval.lmms.results import ERROR_MARK

NUMBERS = ("rating", "score")
PAIRS = (
    ("pred_answer", "answer"),  # Video-MME, MLVU
    ("pred", "ground_truth"),  # EgoSchema
    ("pred_id", "answer_id"),  # PerceptionTest
    ("parsed_pred", "answer"),  # LongVideoBench
)
"""Answer and truth, as the tasks of lmms-eval 0.7.3 name them where they keep no score of a row."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a task.

    Attributes:
        score: 1 right, 0 wrong, or what the task gives between; None where it does not say.
        error: why there is no answer, as the response says it; None where there is one.
    """

    score: float | None
    error: str | None = None


def read_samples(path: Path, metrics: Sequence[str]) -> dict[int, Sample]:
    """Rows of a sample file, by number.

    Args:
        path: ``*_samples_TASK.jsonl``.
        metrics: the task's metrics; the first that every row has a score of is read.

    Raises:
        InputError: a line is no sample of lmms-eval.
    """
    rows: dict[int, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")  # an answer may hold other line ends
    except (OSError, UnicodeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows[int(row["doc_id"])] = row
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: not a line of lmms-eval's samples") from error
    scores: list[float | None] = [None] * len(rows)
    for metric in metrics:
        found = [score_of(row.get(metric)) for row in rows.values()]
        if found and None not in found:
            scores = found
            break
    return {
        number: Sample(score=score, error=_error(row))
        for (number, row), score in zip(rows.items(), scores, strict=True)
    }


def score_of(value: Any) -> float | None:
    """Score in [0, 1] of a row's entry for a metric; None where it holds none."""
    if isinstance(value, Mapping):
        if "Correctness" in value:  # ActivityNet-QA's judge, whose score goes to 5
            return float(str(value["Correctness"]).casefold() == "yes")
        for name in NUMBERS:
            if name in value:
                return score_of(value[name])
        for answer, truth in PAIRS:
            if answer in value and truth in value:
                return float(str(value[answer]) == str(value[truth]))  # some keep one as a number, one as text
        return None
    if isinstance(value, (bool, int, float)) and 0 <= value <= 1:
        return float(value)
    return None


def _error(row: Mapping[str, Any]) -> str | None:
    text = str(row.get("resps") or row.get("filtered_resps") or "")
    place = text.find(ERROR_MARK)
    return None if place < 0 else text[place + len(ERROR_MARK) :].strip(" \"'[]")
