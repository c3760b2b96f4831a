"""Rows of the file formats that queries come in: JSON, JSON lines, CSV, TSV and parquet.

Every reader gives ``(row number, row)``. The number is the line in JSON lines and counts the rows from 1 elsewhere; the
row is a dict, or a :class:`Malformed` that says why it is none. Every format is streamed: no more than some rows of a
file are in memory.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError, require
from tam_plugin.inductor.data.json_array import read_array
from tam_plugin.inductor.data.records import check_file, read_lines

PARQUET_BATCH = 1024
_LONGEST_FIELD = 1 << 24
_MEDIA = ("image", "images", "video", "videos", "audio")


@dataclass(frozen=True)
class Malformed:
    """A row that cannot be read, and why.

    Attributes:
        reason: one line.
        content: what is there in its place.
        is_json: False where the row is not even JSON, so that a loader which reads the whole file fails at it.
    """

    reason: str
    content: Any = None
    is_json: bool = True


Rows = Iterator[tuple[int, "dict[str, Any] | Malformed"]]


def read_rows(path: str | Path) -> Rows:
    """The rows of a file, by its suffix.

    Raises:
        InputError: an unknown suffix, a missing file or directory, or a file that is not what its suffix says; some
            are raised only while the rows are read.
        MissingDependencyError: parquet without pyarrow.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in READERS:
        check_file(path)
        raise InputError(
            f"{str(path)!r}: unknown kind of file {suffix!r}; expected {', '.join(READERS)}, .yaml or .yml"
        )
    check_file(path)
    return READERS[suffix](Path(path))


def _read_json(path: Path) -> Rows:
    for number, value in enumerate(read_array(path), 1):
        yield number, _as_row(value)


def _read_jsonl(path: Path) -> Rows:
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            yield number, _as_row(json.loads(line))
        except (ValueError, RecursionError) as error:
            reason = f"expected a JSON object, found {line.strip()[:60]!r} ({error})"
            yield number, Malformed(reason, is_json=False)


def _as_row(value: Any) -> dict[str, Any] | Malformed:
    if isinstance(value, dict):
        return value
    return Malformed(f"expected a JSON object, found {type(value).__name__} {str(value)[:60]!r}", value)


def _read_csv(path: Path, delimiter: str = ",") -> Rows:
    previous = csv.field_size_limit(_LONGEST_FIELD)
    try:
        rows = csv.DictReader(_as_csv_lines(path), delimiter=delimiter, strict=True)
        names = [name for name in rows.fieldnames or () if name]
        if len(set(names)) < len(names):
            raise InputError(f"{str(path)!r} names a column twice in its first line: {', '.join(names)[:160]}")
        for number, row in enumerate(rows, 1):
            fields = len(rows.fieldnames or ())
            if None in row:
                yield number, Malformed(f"expected {fields} fields, found {fields + len(row[None])}")
            elif None in row.values():
                yield number, Malformed(f"expected {fields} fields, found fewer")
            else:
                yield number, dict(row)
    except csv.Error as error:
        raise InputError(
            f"{str(path)!r}, line {rows.reader.line_num}: not a table with {delimiter!r}: {error}"
        ) from error
    finally:
        csv.field_size_limit(previous)


def _as_csv_lines(path: Path) -> Iterator[str]:
    """Lines without NUL characters, which Python 3.10's csv module refuses and later ones pass on."""
    for number, line in enumerate(read_lines(path), 1):
        if "\0" in line:
            raise InputError(f"{str(path)!r}, line {number}: holds a NUL character; expected a text table")
        yield line


def _read_tsv(path: Path) -> Rows:
    return _read_csv(path, "\t")


def _read_parquet(path: Path) -> Rows:
    """Rows in batches of :data:`PARQUET_BATCH`; a picture or video inside the table is not read, its value is True."""
    arrow = require("pyarrow", needed_for=f"reading {path.name}", extra="data")
    parquet = require("pyarrow.parquet", needed_for=f"reading {path.name}", extra="data")
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            embedded = [f.name for f in schema if f.name.lower() in _MEDIA and not _is_text(arrow, f.type)]
            columns = [name for name in schema.names if name not in embedded]
            number = 0
            for batch in file.iter_batches(PARQUET_BATCH, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row | dict.fromkeys(embedded, True)
    except (OSError, arrow.ArrowException) as error:
        raise InputError(f"{str(path)!r} cannot be read as parquet: {' '.join(str(error).split())[:200]}") from error


def _is_text(arrow, kind) -> bool:
    if arrow.types.is_list(kind) or arrow.types.is_large_list(kind):
        kind = kind.value_type
    return arrow.types.is_string(kind) or arrow.types.is_large_string(kind)


READERS: dict[str, Callable[[Path], Rows]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
"""Reader by suffix."""
