"""Which output of a classifier is which task type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tam_plugin.bounds import MAX_LABELS
from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError, check_unicode
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskExtension, TaskType

_PLACEHOLDER = re.compile(r"label_\d+", re.IGNORECASE)


@dataclass(frozen=True)
class LabelMap:
    """Where the eight task types lie among a classifier's outputs.

    Attributes:
        columns: the output of each task type, in paper order (8 ints).
        extra: names of the outputs that are none of the eight, in output order.
        extra_columns: those outputs.
    """

    columns: tuple[int, ...]
    extra: tuple[str, ...]
    extra_columns: tuple[int, ...] = ()


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
    names = _names(id2label, where)
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
        rest = tuple(column for column in range(len(names)) if column not in found.values())
        return LabelMap(tuple(found[task] for task in TaskType), tuple(names[column] for column in rest), rest)
    by_order = len(names) == NUM_TASK_TYPES or all(_PLACEHOLDER.fullmatch(name) for name in names)
    if found or not by_order:
        missing = ", ".join(task.label for task in TaskType if task not in found)
        raise ConfigError(f"{where}: no label for {missing}; found {', '.join(names)[:200]}")
    rest = tuple(range(NUM_TASK_TYPES, len(names)))
    return LabelMap(tuple(range(NUM_TASK_TYPES)), tuple(names[NUM_TASK_TYPES:]), rest)


def _names(id2label: Any, where: str) -> list[str]:
    """Label texts in the order of their outputs."""
    if not isinstance(id2label, Mapping) or len(id2label) > MAX_LABELS:
        raise ConfigError(f"{where}: id2label = {short(id2label)}: expected a mapping of at most {MAX_LABELS} labels")
    places: dict[int, str] = {}
    for key, name in id2label.items():
        if not str(key).isdecimal() or int(key) in places or not isinstance(name, str):
            raise ConfigError(f"{where}: id2label holds {short(key)}: {short(name)}; expected an output and its label")
        check_unicode(name, what=f"{where}: the label")
        places[int(key)] = name
    if sorted(places) != list(range(len(places))):
        raise ConfigError(f"{where}: id2label has outputs {short(sorted(places))}; expected 0, 1, 2, ... without a gap")
    return [places[column] for column in range(len(places))]


EXTENSIONS_FIELD = "tam_extensions"
"""Field of a checkpoint's ``config.json``: what is known of the task types beyond the eight."""
_EXTENSION_KEYS = {"label", "description", "group", "rule"}


def read_extensions(config: Mapping[str, Any], labels: LabelMap, *, where: str) -> dict[int, TaskExtension]:
    """The task types beyond the eight that a checkpoint was extended by, by their output.

    Args:
        config: the checkpoint's configuration; ``tam_extensions`` is a list of mappings with ``label``,
            ``description`` and either ``group`` or ``rule``.
        labels: where its labels lie.
        where: the checkpoint's name, for messages.

    Raises:
        ConfigError: malformed, or an extension that is no output of the checkpoint.
    """
    entries = config.get(EXTENSIONS_FIELD) or []
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: {EXTENSIONS_FIELD} must be a list, got {entries!r}"[:300])
    found: dict[int, TaskExtension] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not {"label"} <= set(entry) <= _EXTENSION_KEYS:
            keys = ", ".join(sorted(_EXTENSION_KEYS))
            raise ConfigError(f"{where}: {EXTENSIONS_FIELD} holds {entry!r}; expected a mapping of {keys}"[:400])
        try:
            extension = TaskExtension(**entry)
        except InputError as error:
            raise ConfigError(f"{where}: {EXTENSIONS_FIELD}: {error}"[:400]) from error
        if labels.extra.count(extension.label) != 1:
            raise ConfigError(
                f"{where}: {EXTENSIONS_FIELD} names {extension.label!r}, which is not one of the labels beyond the "
                f"eight; found {', '.join(labels.extra) or 'none'}"
            )
        place = labels.extra.index(extension.label)
        found[labels.extra_columns[place]] = replace(extension, index=NUM_TASK_TYPES + 1 + place)
    return found
