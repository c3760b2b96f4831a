"""Rows of the host's training set that lack what every row needs: found before training, named by file and row."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.plans.rows import raw_rows


def problem_of(record: Any) -> str | None:
    """What is wrong with a row whatever it is about, or None."""
    if not isinstance(record, dict):
        return f"the row is no JSON object but {type(record).__name__} {str(record)[:60]!r}"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        what = "no 'conversations'" if turns is None else f"'conversations' is {str(turns)[:60]!r}"
        return f"{what}: expected a list of turns with 'from' and 'value'"
    for turn in turns:
        if not (isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)):
            return f"a turn in 'conversations' is {str(turn)[:60]!r}: expected texts 'from' and 'value'"
    if not any(turn["value"].split() for turn in turns):
        return "'conversations' holds no word"
    return None


def places_of_malformed(host: Any) -> dict[int, str]:
    """``FILE:ROW`` of the malformed rows of a set, by their index in it.

    The files are read again only if there are any: the host joins, draws and shuffles rows without their origin.

    Args:
        host: a ``LazySupervisedDataset``.
    """
    malformed = [(index, record) for index, record in enumerate(host.list_data_dict) if problem_of(record)]
    if not malformed:
        return {}
    places: dict[str, list[str]] = {}
    try:
        for where, content in raw_rows(data_files(host)):
            if problem_of(content):
                places.setdefault(_key(content), []).append(where)
    except InputError:  # the host reads a file that we do not; rows keep their index as their name
        return {}
    named = {}
    for index, record in malformed:
        if found := places.get(_key(record)):
            named[index] = found.pop(0) if len(found) > 1 else found[0]
    return named


def _key(row: Any) -> str:
    return repr(row) if isinstance(row, dict) else ""  # what is no object is told apart by its order alone


def data_files(host: Any) -> list[str]:
    """The data files behind a ``LazySupervisedDataset``."""
    return getattr(host.data_args, "dataset_paths", None) or [host.data_args.data_path]


def word_counts(host: Any, name: str) -> list[int]:
    """The host's ``lengths`` or ``modality_lengths``; a malformed row, which the host cannot count, is one word.

    Args:
        host: a ``LazySupervisedDataset``.
        name: the property.
    """
    records: Sequence[Any] = host.list_data_dict
    usable = [record for record in records if problem_of(record) is None]
    if len(usable) == len(records):
        return getattr(host, name)
    view = copy.copy(host)
    view.list_data_dict = usable
    counts = iter(getattr(view, name))
    return [next(counts) if problem_of(record) is None else 1 for record in records]
