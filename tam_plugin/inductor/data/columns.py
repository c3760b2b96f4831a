"""Which column of a table means what, and its values as those of a record.

Columns are recognised by name, in any case: ``question`` (or query, prompt), ``options`` (or candidates, choices; or
one column an option: a0 ..., option_0 ..., option_a ...), ``duration_s`` (or duration), ``id`` (or qid, question_id)
and ``dataset``. Labels are taken only from a column that is named by the caller, since ``label`` is often the number of
the right answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tam_plugin.errors import InputError, check_unicode
from tam_plugin.inductor.data.records import is_number
from tam_plugin.inductor.text import clean_options
from tam_plugin.taxonomy import TaskType, check_duration_s

NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "prompt"),
    "options": ("options", "candidates", "choices"),
    "duration": ("duration_s", "duration"),
    "id": ("id", "qid", "question_id"),
    "dataset": ("dataset",),
    "label": (),
    "label2": (),
}
"""The names under which each role is recognised, the first one first."""

_OPTION_COLUMN = re.compile(r"(?:a|option_?|choice_?|candidate_?)(\d{1,2})|(?:option|choice|candidate)_([a-z])")


def parse_columns(given: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """``ROLE=NAME[,NAME...]`` as a mapping; ``ROLE=`` says that no column has the role.

    Raises:
        InputError: no such role, a role named twice, or several columns for a role that takes one.
    """
    columns: dict[str, tuple[str, ...]] = {}
    for text in given:
        role, equals, names = text.partition("=")
        if not equals or role not in NAMES:
            raise InputError(f"--column {text!r}: expected ROLE=NAME with a role among {', '.join(NAMES)}")
        if role in columns:
            raise InputError(f"--column {text!r}: the columns of {role} are given twice")
        columns[role] = tuple(name.strip() for name in names.split(",") if name.strip())
        if len(columns[role]) > 1 and role not in ("id", "options"):
            raise InputError(f"--column {text!r}: {role} takes one column")
    return columns


class Columns:
    """Finds the columns of each role in a row's keys.

    Args:
        given: role → column names, from :func:`parse_columns`; they win over recognised names.
    """

    def __init__(self, given: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._given = dict(given or {})
        self._found = lru_cache(maxsize=256)(self._resolve)

    def find(self, row: Mapping[str, Any], role: str) -> tuple[str, ...]:
        """The row's columns of a role, none when it has none.

        Raises:
            InputError: a column that was named by the caller is not there.
        """
        return self._found(tuple(row), role)

    def value(self, row: Mapping[str, Any], role: str) -> Any:
        """The value of a role that has one column, else None."""
        names = self.find(row, role)
        return row[names[0]] if names else None

    def _resolve(self, keys: tuple[str, ...], role: str) -> tuple[str, ...]:
        if role in self._given:
            for name in self._given[role]:
                if name not in keys:
                    raise InputError(f"no column {name!r} for the {role}; found {_list(keys)}")
            return self._given[role]
        lowered = {str(key).lower(): key for key in reversed(keys)}
        for name in NAMES[role]:
            if name in lowered:
                return (lowered[name],)
        if role == "options":
            numbered = [(match, key) for key in keys if (match := _OPTION_COLUMN.fullmatch(str(key).lower()))]
            return tuple(key for match, key in sorted(numbered, key=lambda pair: _place(pair[0])))
        return ()


def _place(match: re.Match[str]) -> tuple[int, str]:
    return int(match.group(1) or 0), match.group(2) or ""


def _list(keys: Sequence[str]) -> str:
    return ", ".join(repr(key) for key in keys)[:160] or "none"


def question_of(row: Mapping[str, Any], columns: Columns) -> str:
    """The question as it stands in the row.

    Raises:
        InputError: no column for it, or no text in it.
    """
    names = columns.find(row, "question")
    if not names:
        recognised = ", ".join(NAMES["question"])
        raise InputError(
            f"no column for the question ({recognised}, or --column question=NAME); found {_list(tuple(row))}"
        )
    value = row[names[0]]
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"the column {names[0]!r} must hold a question, got {str(value)[:60]!r}")
    check_unicode(value)
    return value


def options_of(row: Mapping[str, Any], columns: Columns) -> tuple[str, ...]:
    """The answer options: a list, JSON text of a list or of letters to texts, or one column an option.

    Raises:
        InputError: something else.
    """
    names = columns.find(row, "options")
    if not names:
        return ()
    values: Any = [row[name] for name in names] if len(names) > 1 else row[names[0]]
    if isinstance(values, str) and values.strip():
        try:
            values = json.loads(values)
        except (ValueError, RecursionError):
            raise InputError(
                f"the column {names[0]!r} must hold a list or JSON text of one, got {values[:60]!r}"
            ) from None
    if isinstance(values, dict):
        values = list(values.values())
    if values is None or values == "":
        return ()
    if not isinstance(values, list):
        raise InputError(f"the column {names[0]!r} must hold a list of options, got {str(values)[:60]!r}")
    texts = [str(value) if is_number(value) else value for value in values if value is not None]
    options = clean_options(texts)
    check_unicode(*options)
    return options


def duration_of(row: Mapping[str, Any], columns: Columns) -> float | None:
    """Seconds, or None when the row does not say.

    Raises:
        InputError: not a number of seconds above 0.
    """
    value = columns.value(row, "duration")
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value) if isinstance(value, str) else value
        check_duration_s(number)
    except ValueError:
        name = columns.find(row, "duration")[0]
        raise InputError(
            f"the column {name!r} must hold seconds > 0 or nothing, got {str(value)[:40]!r} "
            "(--column duration= leaves durations out)"
        ) from None
    return number


def id_of(row: Mapping[str, Any], columns: Columns) -> str | None:
    """The row's own id, its columns joined by ``_``; None when there is none.

    Raises:
        InputError: neither text nor a whole number.
    """
    parts = [row[name] for name in columns.find(row, "id")]
    for part in parts:
        if part is not None and (isinstance(part, bool) or not isinstance(part, (str, int))):
            raise InputError(f"an id must be text or a whole number, got {str(part)[:60]!r}")
    return "_".join(str(part) for part in parts if part is not None).strip() or None


def labels_of(row: Mapping[str, Any], columns: Columns) -> tuple[int | None, int | None]:
    """Label and second label (1-8) from the columns that the caller named; names of task types are read too.

    Raises:
        InputError: no such task type, or a second label without a first.
    """
    values = [columns.value(row, role) for role in ("label", "label2")]
    label, label2 = (None if v is None or v == "" else TaskType.from_label(v).index for v in values)
    if label is None and label2 is not None:
        raise InputError(f"label2 is {label2}, but there is no label")
    return label, label2
