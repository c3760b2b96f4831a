"""Queries in: JSON lines, read one at a time.

A line is an object with ``id`` and ``question``, and perhaps ``options``, ``duration_s`` and ``dataset``; whatever else
it holds is carried along.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tam_plugin.errors import InputError
from tam_plugin.taxonomy import check_duration_s

Row = dict[str, Any]


@dataclass(frozen=True)
class QueryFile:
    """A checked file of queries that can be read as often as needed, one row at a time.

    Attributes:
        path: the file.
        num_rows: how many rows iterating gives.
        sha256: of the whole file.
    """

    path: Path
    num_rows: int
    sha256: str

    @classmethod
    def check(cls, path: str | Path, *, limit: int | None = None) -> QueryFile:
        """Read the whole file once, so that nothing is asked of a file that is wrong further down.

        Args:
            path: the file.
            limit: iterating stops after this many rows.

        Raises:
            InputError: the file cannot be read or is empty, a line is malformed, or an id is missing or occurs twice.
        """
        path = Path(path)
        if path.exists() and not path.is_file():
            raise InputError(f"the query file {str(path)!r} is no regular file, and it is read more than once")
        digest = hashlib.sha256()
        seen: dict[str, int] = {}
        for number, line in _lines(path):
            digest.update(line)
            if not line.strip():
                continue
            identity = _parse(line, f"{path}, line {number}")["id"]
            if identity in seen:
                raise InputError(
                    f"{path}, line {number}: the id {identity!r} is that of line {seen[identity]} as well; "
                    "every query needs its own"
                )
            seen[identity] = number
        if not seen:
            raise InputError(f"the query file {str(path)!r} is empty; expected one JSON object a line")
        return cls(path, len(seen) if limit is None else min(limit, len(seen)), digest.hexdigest())

    def __iter__(self) -> Iterator[Row]:
        digest = hashlib.sha256()
        given = 0
        for number, line in _lines(self.path):
            digest.update(line)
            if given < self.num_rows and line.strip():
                yield _parse(line, f"{self.path}, line {number}")
                given += 1
        if digest.hexdigest() != self.sha256:
            raise InputError(f"the query file {str(self.path)!r} was changed while it was in use; run again with it")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise InputError(f"the query file {str(path)!r} cannot be read: {error}") from error


def _parse(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8"), parse_constant=_no_such_number)
        # Half a surrogate pair can be written in JSON, and neither sent nor written again.
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected a JSON object in UTF-8 ({error})") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(row).__name__}")
    identity, question, options = row.get("id"), row.get("question"), row.get("options")
    if not isinstance(identity, str) or not identity.strip():
        raise InputError(f"{where}: id must be text of its own for every query, got {identity!r}")
    if not isinstance(question, str) or not question.strip():
        raise InputError(f"{where}: question must be text, got {question!r}")
    if options is not None and not (isinstance(options, list) and all(isinstance(o, str) for o in options)):
        raise InputError(f"{where}: options must be a list of texts or null, got {str(options)[:60]!r}")
    try:
        check_duration_s(row.get("duration_s"))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return row


def _no_such_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
