"""Which output of a classifier is which task type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskType

_PLACEHOLDER = re.compile(r"label_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class LabelMap:
    """Where the eight task types lie among a classifier's outputs.

    Attributes:
        columns: the output of each task type, in paper order (8 ints).
        extra: names of the outputs that are none of the eight, in output order.
    """

    columns: tuple[int, ...]
    extra: tuple[str, ...]


def map_labels(id2label: Mapping[int | str, str], *, where: str) -> LabelMap:
    """Find the eight task types among a checkpoint's labels: by their text, else by order.

    Labels are read by order when there are exactly eight of them, or when they are the placeholders ``LABEL_0``,
    ``LABEL_1``, ... that Hugging Face writes where no names were given; outputs after the eighth are then extra.

    Args:
        id2label: output index → label text, as in a Hugging Face ``config.json``.
        where: the checkpoint's name, for messages.

    Raises:
        ConfigError: fewer than eight labels, two outputs of one task type, or labels that name only some of the types.
    """
    names = [str(id2label[key]) for key in sorted(id2label, key=int)]
    if len(names) < NUM_TASK_TYPES:
        raise ConfigError(
            f"{where}: an Inductor needs at least {NUM_TASK_TYPES} labels, found {len(names)}: {', '.join(names)[:200]}"
        )
    found: dict[TaskType, int] = {}
    for column, name in enumerate(names):
        try:
            task = TaskType.from_label(name)
        except InputError:
            continue
        if task in found:
            raise ConfigError(f"{where}: labels {found[task]} and {column} both mean {task.label!r}")
        found[task] = column
    if len(found) == NUM_TASK_TYPES:
        extra = tuple(name for column, name in enumerate(names) if column not in found.values())
        return LabelMap(tuple(found[task] for task in TaskType), extra)
    by_order = len(names) == NUM_TASK_TYPES or all(_PLACEHOLDER.fullmatch(name) for name in names)
    if found or not by_order:
        missing = ", ".join(task.label for task in TaskType if task not in found)
        raise ConfigError(f"{where}: no label for {missing}; found {', '.join(names)[:200]}")
    return LabelMap(tuple(range(NUM_TASK_TYPES)), tuple(names[NUM_TASK_TYPES:]))
