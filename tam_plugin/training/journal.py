"""What a killed run leaves: the chunks that it had finished, one line each, and what they were made from."""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.training.check import difference
from tam_plugin.training.table import DEFERRED, HEADER_FILE, PLAN, TABLE_FILE

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOURNAL_FILE = "plans.journal.jsonl"
_OURS = (JOURNAL_FILE, HEADER_FILE, TABLE_FILE)


@dataclass
class Chunk:
    """Some rows of the data, planned.

    Attributes:
        rows: rows that were read, with and without a video.
        plans: :data:`~tam_plugin.training.table.PLAN` of those with one.
        deferred: :data:`~tam_plugin.training.table.DEFERRED` of those whose duration is not known.
        baseline_tokens: visual tokens of the same rows under the fixed baseline.
        truncated: questions that are longer than the Inductor reads.
        unreadable: path and reason of videos that cannot be opened.
    """

    rows: int
    plans: NDArray[Any] = field(default_factory=lambda: np.empty(0, PLAN))
    deferred: NDArray[Any] = field(default_factory=lambda: np.empty(0, DEFERRED))
    baseline_tokens: int = 0
    truncated: int = 0
    unreadable: list[list[str]] = field(default_factory=list)

    def to_line(self) -> str:
        """One line of JSON."""
        values = {**self.__dict__, "plans": _packed(self.plans), "deferred": _packed(self.deferred)}
        return json.dumps(values) + "\n"

    @classmethod
    def from_line(cls, line: bytes) -> Chunk:
        """What :meth:`to_line` wrote."""
        values = json.loads(line)
        plans, deferred = (np.frombuffer(base64.b64decode(values.pop(n)), t) for n, t in _TABLES)
        return cls(**values, plans=plans, deferred=deferred)


_TABLES = (("plans", PLAN), ("deferred", DEFERRED))


def _packed(rows: NDArray[Any]) -> str:
    return base64.b64encode(rows.tobytes()).decode()


class Journal:
    """An append-only file of chunks; each is on the disk before the next is begun."""

    def __init__(self, file: IO[bytes], chunks: list[Chunk]) -> None:
        self._file, self.chunks = file, chunks

    @property
    def rows(self) -> int:
        """Rows of the data that are done."""
        return sum(chunk.rows for chunk in self.chunks)

    def add(self, chunk: Chunk) -> None:
        """Append a chunk."""
        self._file.write(chunk.to_line().encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.chunks.append(chunk)


def check_folder(out: str | Path) -> None:
    """Refuse an output folder that holds something else than plans, and make one that is not there.

    Raises:
        InputError: the name is empty or a file's, the folder cannot be made, or another file is in it.
    """
    if not str(out).strip():
        raise InputError("--out has an empty name; expected a folder for the plans")
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
        names = sorted(os.listdir(out))
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be made a folder: {error.strerror}") from error
    for name in names:
        if name.startswith(".plans.") and name.endswith(".part"):
            continue
        if name not in _OURS:
            raise InputError(f"--out {str(out)!r} holds {name!r}, which is no file of plans; give a folder of its own")


def refuse_other(out: str | Path, before: dict[str, Any], now: dict[str, Any], *, state: str) -> None:
    """Refuse a folder whose plans are made from something else than is asked for now.

    Raises:
        InputError: with the first difference.
    """
    found = next((d for key in now if (d := difference(before.get(key), now[key], key))), None)
    if found:
        raise InputError(f"--out {str(out)!r} holds {state} made otherwise: {found}; give another folder or delete it")


@contextmanager
def opened(out: str | Path, source: dict[str, Any]) -> Iterator[Journal]:
    """The journal of a folder, begun or gone on with; a torn last line is dropped.

    Raises:
        InputError: it belongs to another request, is in use by another process, or is damaged.
    """
    path = Path(out) / JOURNAL_FILE
    try:
        file = open(path, "a+b")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another 'tam plan-data' is writing into {str(out)!r}; wait for it or end it") from None
        for left in Path(out).glob(".plans.*.part"):
            left.unlink(missing_ok=True)
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        file.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            file.write(json.dumps(source).encode() + b"\n")
            file.flush()
        yield Journal(file, _chunks(lines, out, path, source))


def _chunks(lines: list[bytes], out: str | Path, path: Path, source: dict[str, Any]) -> list[Chunk]:
    chunks: list[Chunk] = []
    for number, line in enumerate(lines, 1):
        try:
            if number > 1:
                chunks.append(Chunk.from_line(line))
                continue
            before = json.loads(line)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}:{number}: damaged ({str(error)[:100]}); delete the file to begin anew") from error
        refuse_other(out, before, source, state="unfinished plans")
    return chunks
