"""One query of a data file: what a line holds, how it is checked and read.

A line is a JSON object with ``id``, ``question``, ``options`` (list of texts or null), ``duration_s`` (seconds or
null), ``dataset`` and, where they are known, ``source`` (``file:row``), ``label`` (1-8) and ``label2`` (1-8 or null).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tam_plugin.errors import InputError, check_unicode
from tam_plugin.files import opened
from tam_plugin.taxonomy import NUM_TASK_TYPES, check_duration_s


@dataclass(frozen=True)
class Record:
    """One query: ``label`` and ``label2`` are 1-8 in paper order, or None where nobody has labelled it."""

    id: str
    question: str
    options: tuple[str, ...] | None = None
    duration_s: float | None = None
    dataset: str = ""
    source: str = ""
    label: int | None = None
    label2: int | None = None

    def to_json(self) -> str:
        """The record as one line of JSON, in ASCII so that no character in it can end the line."""
        row: dict[str, Any] = {
            "id": self.id,
            "question": self.question,
            "options": list(self.options) if self.options else None,
            "duration_s": self.duration_s,
            "dataset": self.dataset,
        }
        if self.source:
            row["source"] = self.source
        if self.label is not None:
            row |= {"label": self.label, "label2": self.label2}
        return json.dumps(row)


class StoredRecord(NamedTuple):
    """A record as it stands in a file: its line number from 1, and the line without its end."""

    record: Record
    number: int
    line: str


class UniqueIds:
    """Refuses an id that came before; holds every id in memory, about 200 bytes each."""

    def __init__(self) -> None:
        self._places: dict[str, tuple[str, int]] = {}

    def add(self, name: str, path: str, number: int, *, remedy: str = "give each query an id of its own") -> None:
        """Note an id of row ``number`` of ``path``.

        Raises:
            InputError: the id is there already; the message names both places and ends with ``remedy``.
        """
        place = self._places.get(name)
        if place is not None:
            raise InputError(f"the id {name!r} is at {place[0]}:{place[1]} and at {path}:{number}; {remedy}")
        self._places[name] = (path, number)


def read_records(path: str | Path, ids: UniqueIds | None = None) -> Iterator[StoredRecord]:
    """Read a file of queries line by line; blank lines are passed over.

    Args:
        path: JSON lines.
        ids: ids that other files have used already; the file's own are added.

    Raises:
        InputError: the path is missing, a directory or not UTF-8; a line is malformed or repeats an id; or the file
            holds no query. The message names file and line.
    """
    ids = ids or UniqueIds()
    number = 0
    found = False
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            record = parse_record(line, f"{path}:{number}")
            ids.add(record.id, str(path), number)
            found = True
            yield StoredRecord(record, number, line.rstrip("\r\n"))
    if not found:
        state = "holds blank lines only" if number else "is empty"
        raise InputError(f"{str(path)!r} {state}; expected queries, one JSON object a line")


def read_lines(path: str | Path) -> Iterator[str]:
    """The lines of a UTF-8 text file, a byte-order mark dropped.

    Raises:
        InputError: missing, a directory, not a regular file, or not UTF-8.
    """
    check_file(path)
    number = 0
    try:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 text: {error}") from error


def check_file(path: str | Path) -> None:
    """Refuse what is not a file that can be read from its start to its end.

    Raises:
        InputError: missing, a directory or something else; the message says which.
    """
    if not str(path).strip():
        raise InputError("the name of a data file is empty")
    try:
        kind = "" if Path(path).is_file() else "directory" if Path(path).is_dir() else "other"
        exists = Path(path).exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)[:200]!r} cannot be looked up: {error}") from error
    if kind == "directory":
        raise InputError(f"{str(path)!r} is a directory; name the files in it")
    if kind:
        raise InputError(f"{str(path)!r} is not a regular file" if exists else f"there is no file {str(path)!r}")


def parse_record(line: str, where: str) -> Record:
    """One line as a record.

    Args:
        line: a JSON object.
        where: ``file:line``, for messages.

    Raises:
        InputError: not a JSON object, a missing id or question, or a value that its key cannot have.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object, found {line.strip()[:60]!r} ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(row).__name__}")
    for key in ("id", "question"):
        if key not in row:
            raise InputError(f"{where}: the key {key!r} is missing; found {', '.join(map(repr, row))[:120]}")
    if isinstance(row["id"], bool) or not isinstance(row["id"], (str, int)) or not str(row["id"]).strip():
        raise InputError(f"{where}: id must be text, got {row['id']!r}")
    texts = {key: row.get(key) or "" for key in ("dataset", "source")}
    for key, value in (("question", row["question"]), *texts.items()):
        if not isinstance(value, str) or (key == "question" and not value.strip()):
            raise InputError(f"{where}: {key} must be text, got {str(value)[:60]!r}")
    options = row.get("options")
    if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
        raise InputError(f"{where}: options must be a list of texts or null, got {str(options)[:60]!r}")
    try:
        check_duration_s(row.get("duration_s"))
        check_unicode(row["question"], *(options or ()))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    label = _label(row, "label", where)
    label2 = _label(row, "label2", where)
    if label is None and label2 is not None:
        raise InputError(f"{where}: label2 is {label2}, but there is no label")
    return Record(
        str(row["id"]), row["question"], tuple(options) if options else None, row.get("duration_s"), **texts,
        label=label, label2=label2,
    )  # fmt: skip


def _label(row: dict[str, Any], key: str, where: str) -> int | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= NUM_TASK_TYPES:
        raise InputError(f"{where}: {key} = {value!r}: expected 1-{NUM_TASK_TYPES} in paper order")
    return value


def is_number(value: object) -> bool:
    """Whether a value is a finite number, and not true or false."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
