"""Labelled rows for fine-tuning: JSON lines with checked labels and ids, the held-out split, targets, class weights.

A line is ``{"question", "label"}`` with optional ``label2``, ``options``, ``duration_s`` and ``id``. A label is a task
type's number (1-8 in paper order, then the extensions) or its name.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.config import short
from tam_plugin.errors import InputError
from tam_plugin.inductor.data.records import read_lines
from tam_plugin.inductor.text import build_input
from tam_plugin.taxonomy import TaskType, check_duration_s

if TYPE_CHECKING:
    from torch import Tensor

CLASS_WEIGHTS = ("balanced", "sqrt", "none")
TASK_LABELS = tuple(task.label for task in TaskType)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One labelled question; ``label`` and ``label2`` are 1-based, ``where`` is its file and line."""

    question: str
    label: int
    label2: int | None = None
    options: tuple[str, ...] | None = None
    duration_s: float | None = None
    id: str | None = None
    where: str = ""

    def text(self, *, use_options: bool, use_duration: bool) -> str:
        """The text that the classifier reads (:mod:`tam_plugin.inductor.text`).

        Raises:
            InputError: nothing is left of the question; the message names the line.
        """
        try:
            return build_input(
                self.question,
                options=self.options,
                duration_s=self.duration_s,
                use_options=use_options,
                use_duration=use_duration,
            )
        except InputError as error:
            raise InputError(f"{self.where}: {error}") from error


def read_rows(paths: Sequence[str | Path], labels: Sequence[str] = TASK_LABELS) -> list[Row]:
    """Read JSON-lines files.

    Args:
        paths: the files.
        labels: names of the labels that may occur; the first has number 1.

    Raises:
        InputError: a file is missing or empty, a line is malformed or has a label beyond ``labels``, or an id occurs
            twice; the message names file and line.
    """
    numbers = _label_numbers(labels)
    rows: list[Row] = []
    for path in paths:
        before = len(rows)
        filled = ((n, line) for n, line in enumerate(read_lines(path), 1) if line.strip())
        rows += [_parse(line, f"{path}, line {n}", numbers, labels) for n, line in filled]
        if len(rows) == before:
            raise InputError(f"the data file {str(path)!r} is empty; expected one JSON object a line")
    check_ids(rows)
    return rows


def check_ids(rows: Sequence[Row]) -> None:
    """Refuse an id that two rows share.

    Raises:
        InputError: the message names both places.
    """
    seen: dict[str, str] = {}
    for row in rows:
        if row.id is not None and row.id in seen:
            raise InputError(f"{row.where}: id {row.id!r} is that of {seen[row.id]} too; ids must be unique")
        if row.id is not None:
            seen[row.id] = row.where


def normalised(label: object) -> str:
    """A label as it is compared: letters and digits alone, in lower case."""
    return "".join(c for c in str(label).lower() if c.isalnum())


def _label_numbers(labels: Sequence[str]) -> dict[str, int]:
    found = {normalised(task.name): task.index for task in TaskType if task.index <= len(labels)}
    for number, label in enumerate(labels, 1):
        found |= {normalised(label): number, str(number): number}
    return found


def _parse(line: str, where: str, numbers: Mapping[str, int], labels: Sequence[str]) -> Row:
    try:
        row = json.loads(line)
        question, label = row["question"], row["label"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object with question and label ({error})") from error
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: question must be text, got {short(question)}")
    options, duration_s, name = row.get("options"), row.get("duration_s") or None, row.get("id")
    if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
        raise InputError(f"{where}: options must be a list of texts or null, got {short(options)}")
    try:
        check_duration_s(duration_s)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return Row(
        question=question,
        label=_number(label, where, numbers, labels),
        label2=None if row.get("label2") is None else _number(row["label2"], where, numbers, labels),
        options=tuple(options) if options else None,
        duration_s=duration_s,
        id=None if name is None else str(name),
        where=where,
    )


def _number(label: Any, where: str, numbers: Mapping[str, int], labels: Sequence[str]) -> int:
    number = numbers.get(normalised(label)) if isinstance(label, (str, int)) else None
    if number is None or isinstance(label, bool):
        names = ", ".join(labels)
        raise InputError(f"{where}: unknown label {short(label)}; expected 1-{len(labels)} or one of {names}")
    return number


def split_rows(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows: ``share`` of each label is held out, and one of a label that has two or more."""
    by_label: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_label[row.label].append(i)
    held: set[int] = set()
    for label, members in sorted(by_label.items()):
        count = min(len(members) - 1, max(1, math.floor(len(members) * share + 0.5)))
        held.update(random.Random(f"{seed} {label}").sample(members, count))
    return [r for i, r in enumerate(rows) if i not in held], [r for i, r in enumerate(rows) if i in held]


def cut_ids(ids: Sequence[list[int]], most: int) -> list[list[int]]:
    """Token lists of at most ``most``; longer ones lose their middle, as when they are classified."""
    head = most // 4
    return [i if len(i) <= most else i[:head] + i[len(i) - (most - head) :] for i in ids]


def soft_targets(rows: Sequence[Row], num_labels: int, *, label2_weight: float, label_smoothing: float) -> Tensor:
    """Targets ``[B, L]``: the label, the share of a second valid label, and smoothing over all labels."""
    import torch

    target = torch.full((len(rows), num_labels), label_smoothing / num_labels)
    for i, row in enumerate(rows):
        share = label2_weight if row.label2 and row.label2 != row.label else 0.0
        target[i, row.label - 1] += (1 - share) * (1 - label_smoothing)
        if share:
            target[i, row.label2 - 1] += share * (1 - label_smoothing)  # type: ignore[operator]
    return target


def class_weights(rows: Sequence[Row], num_labels: int, mode: str) -> list[float]:
    """Weight of each label in the loss: ``balanced`` n_c⁻¹, ``sqrt`` n_c^(-1/2), ``none`` 1.

    They are scaled so that their mean over the rows is 1, which keeps the size of the loss; a label without rows, whose
    target holds little more than smoothing, weighs 1. With ``balanced`` that is N / (C · n_c) for N rows of C labels.
    """
    power = {"balanced": 1.0, "sqrt": 0.5, "none": 0.0}[mode]
    counts = Counter(row.label for row in rows)
    raw = {label: count**-power for label, count in counts.items()}
    mean = sum(raw[label] * count for label, count in counts.items()) / len(rows)
    return [raw[label] / mean if label in raw else 1.0 for label in range(1, num_labels + 1)]
