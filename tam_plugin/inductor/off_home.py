"""What an Inductor's confidence is worth off home ground: other languages, no questions, and its own mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.inductor.dataset import LabelledQuery
from tam_plugin.inductor.grammar import CORPUS_FOLDER
from tam_plugin.inductor.model import Inductor
from tam_plugin.taxonomy import TaskDistribution

OFF_HOME_FILE = CORPUS_FOLDER / "multilingual_test" / "off_home.jsonl"
"""Texts that ask nothing about a video: ``text`` and ``kind`` (chat, code, random). None was trained on."""
SHARES = (1.0, 0.9, 0.8, 0.7, 0.5)


def auroc(high: Sequence[float], low: Sequence[float]) -> float | None:
    """The chance that a number of ``high`` is above one of ``low`` (a tie counts half); None if either is empty."""
    if not high or not low:
        return None
    ranked = sorted([(value, True) for value in high] + [(value, False) for value in low])
    total, start = 0.0, 0
    while start < len(ranked):
        end = start
        while end < len(ranked) and ranked[end][0] == ranked[start][0]:
            end += 1
        below = (start + 1 + end) / 2  # mean rank of a run of ties
        total += below * sum(is_high for _, is_high in ranked[start:end])
        start = end
    return (total - len(high) * (len(high) + 1) / 2) / (len(high) * len(low))


def selective(found: Sequence[TaskDistribution], rows: Sequence[LabelledQuery]) -> dict[str, Any]:
    """What is gained by answering only where the confidence is high.

    Returns:
        ``auroc`` of the confidence as a sign of a right answer (None where all are right, or none), and ``kept``: for
        each share of the queries that is answered, its accuracy.
    """
    right = [answer.decided_task.index in (row.label, row.label2) for answer, row in zip(found, rows, strict=True)]
    sure = [distribution.decided_confidence for distribution in found]
    order = sorted(range(len(rows)), key=lambda i: -sure[i])
    kept = {}
    for share in SHARES:
        chosen = order[: max(1, round(share * len(rows)))]
        kept[f"{share:g}"] = sum(right[i] for i in chosen) / len(chosen)
    good, bad = ([s for s, r in zip(sure, right, strict=True) if r is wanted] for wanted in (True, False))
    return {"auroc": auroc(good, bad), "kept": kept}


def read_texts(path: str | Path = OFF_HOME_FILE) -> dict[str, list[str]]:
    """Texts by kind from JSON lines of ``text`` and ``kind``.

    Raises:
        InputError: the file cannot be read, or a line is malformed.
    """
    texts: dict[str, list[str]] = {}
    try:
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                where = f"{path}, line {number}"
                row = json.loads(line)
                texts.setdefault(str(row["kind"]), []).append(str(row["text"]))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file of texts {str(path)!r} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: expected a JSON object with text and kind ({error})") from error
    return texts


def detection(
    inductor: Inductor, home: Sequence[TaskDistribution], texts: dict[str, list[str]]
) -> dict[str, dict[str, Any]]:
    """How well the confidence tells texts off home ground from questions at home.

    Args:
        inductor: the Inductor.
        home: what it says of questions at home.
        texts: texts off home ground, by kind.

    Returns:
        By kind: ``count``, ``auroc`` of the confidence, ``confidence`` (mean) and ``unknown``: share that is held to
        say nothing, and gets the baseline's budget.
    """
    result = {}
    for kind, given in texts.items():
        found = inductor.classify_batch(given)
        sure = [distribution.decided_confidence for distribution in found]
        result[kind] = {
            "count": len(given),
            "auroc": auroc([distribution.decided_confidence for distribution in home], sure),
            "confidence": sum(sure) / len(sure),
            "unknown": sum(distribution.doubt is not None for distribution in found) / len(found),
        }
    return result
