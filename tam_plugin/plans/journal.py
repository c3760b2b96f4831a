"""The journal of a run: the chunks that are finished, one line each, and what they were made from.

A run that is divided (``--shard``) has a journal of each shard in the one folder; chunks are dealt to the shards in
turn, so that each is computed as an undivided run computes it.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.plans import bad_rows
from tam_plugin.plans.bad_rows import BadRow
from tam_plugin.plans.table import DEFERRED, HEADER_FILE, PLAN, TABLE_FILE
from tam_plugin.storage import PART_SUFFIX, Journal, difference, read_journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PLAIN_NAME = "plans.journal.jsonl"
_SHARD_NAME = re.compile(r"plans\.journal\.(\d+)-of-(\d+)\.jsonl")
_OURS = (_PLAIN_NAME, HEADER_FILE, TABLE_FILE, bad_rows.FILE_NAME)
_LEFT_STARTS = tuple(f".{name}." for name in _OURS)


@dataclass(frozen=True, order=True)
class Shard:
    """A share of the work: every ``total``-th chunk, from the ``number``-th on (``number`` counts from 1)."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``I/N`` with 1 <= I <= N.

        Raises:
            InputError: anything else.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.total:
            raise InputError(f"--shard {text!r}: expected I/N with whole numbers and 1 <= I <= N, such as 1/8")
        return shard

    def holds(self, chunk: int) -> bool:
        """Whether a chunk, counted from 0, belongs to it."""
        return chunk % self.total == self.number - 1

    @property
    def file_name(self) -> str:
        """The name of its journal."""
        return _PLAIN_NAME if self.total == 1 else f"plans.journal.{self.number}-of-{self.total}.jsonl"

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


WHOLE = Shard(1, 1)


@dataclass
class Chunk:
    """Some rows of the data, planned.

    Attributes:
        rows: rows that were read, with and without a video.
        plans: :data:`~tam_plugin.plans.table.PLAN` of those with one.
        deferred: :data:`~tam_plugin.plans.table.DEFERRED` of those whose duration is not known.
        baseline_tokens: visual tokens of the same rows under the fixed baseline.
        truncated: questions that are longer than the Inductor reads.
        bad_durations: rows whose duration is not a valid one, so that it is ignored.
        bad: rows that training could not use.
    """

    rows: int
    plans: NDArray[Any] = field(default_factory=lambda: np.empty(0, PLAN))
    deferred: NDArray[Any] = field(default_factory=lambda: np.empty(0, DEFERRED))
    baseline_tokens: int = 0
    truncated: int = 0
    bad_durations: int = 0
    bad: list[BadRow] = field(default_factory=list)

    @property
    def unreadable(self) -> dict[str, str]:
        """Path and reason of the videos that cannot be read."""
        return {row.name: row.reason for row in self.bad if row.kind == bad_rows.UNREADABLE}

    def to_record(self, number: int) -> dict[str, Any]:
        """JSON values, with the chunk's number."""
        packed = {name: base64.b64encode(getattr(self, name).tobytes()).decode() for name, _ in _TABLES}
        return {"chunk": number, **self.__dict__, **packed}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> tuple[int, Chunk]:
        """What :meth:`to_record` gave.

        Raises:
            ValueError, KeyError, TypeError: the values are not those of a chunk.
        """
        values = dict(record)
        number = int(values.pop("chunk"))
        plans, deferred = (np.frombuffer(base64.b64decode(values.pop(n)), t) for n, t in _TABLES)
        bad = [BadRow(*row) for row in values.pop("bad")]
        return number, cls(**values, plans=plans, deferred=deferred, bad=bad)


_TABLES = (("plans", PLAN), ("deferred", DEFERRED))


class ChunkJournal:
    """Chunks that are done, in one journal for each shard of the work; each is on the disk before the next is begun.

    A chunk that is added again takes the place of what was there. What is in the files is read back when it is asked
    for, so that memory holds the place of each chunk alone.

    Args:
        journals: of the shards, open.

    Raises:
        InputError: a journal is damaged.
    """

    def __init__(self, journals: Mapping[Shard, Journal]) -> None:
        self._journals = dict(journals)
        self._places: dict[int, tuple[Journal, int]] = {}
        self._unreadable: set[int] = set()
        for shard, shard_journal in self._journals.items():
            self._read(shard, shard_journal)

    def _read(self, shard: Shard, shard_journal: Journal) -> None:
        for number, start, record in shard_journal.lines():
            try:
                place, chunk = Chunk.from_record(record)
                if not shard.holds(place):
                    raise ValueError(f"chunk {place} belongs to another shard")
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{shard_journal.path}:{number}: damaged ({str(error)[:100]}); delete the file to start again"
                ) from error
            self._note(place, chunk, shard_journal, start)

    @property
    def shards(self) -> list[Shard]:
        """The shards whose files are open."""
        return list(self._journals)

    @property
    def numbers(self) -> set[int]:
        """Numbers of the chunks that are done."""
        return set(self._places)

    @property
    def with_unreadable(self) -> list[int]:
        """Numbers of the chunks with videos that could not be read."""
        return sorted(self._unreadable)

    def add(self, number: int, chunk: Chunk) -> None:
        """Append a chunk.

        Raises:
            InputError: the disk is full or gone.
        """
        of_shard = next(journal for shard, journal in self._journals.items() if shard.holds(number))
        self._note(number, chunk, of_shard, of_shard.append(chunk.to_record(number)))

    def _note(self, number: int, chunk: Chunk, of_shard: Journal, start: int) -> None:
        self._places[number] = (of_shard, start)
        (self._unreadable.add if chunk.unreadable else self._unreadable.discard)(number)

    def chunk(self, number: int) -> Chunk:
        """Read a chunk back."""
        of_shard, start = self._places[number]
        return Chunk.from_record(of_shard.record(start))[1]

    def chunks(self) -> Iterator[Chunk]:
        """All chunks in the order of the data."""
        return (self.chunk(number) for number in sorted(self._places))


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
        if (
            name in _OURS
            or _SHARD_NAME.fullmatch(name)
            or (name.startswith(_LEFT_STARTS) and name.endswith(PART_SUFFIX))
        ):
            continue
        raise InputError(f"--out {str(out)!r} holds {name!r}, which does not belong to plans; give a folder of its own")


def shards_in(out: str | Path) -> list[Shard]:
    """The shards of which a folder holds journals, :data:`WHOLE` for that of an undivided run.

    Raises:
        InputError: they are of different divisions.
    """
    names = sorted(os.listdir(out))
    found = [Shard(*map(int, match.groups())) for name in names if (match := _SHARD_NAME.fullmatch(name))]
    found += [WHOLE] if _PLAIN_NAME in names else []
    totals = sorted({shard.total for shard in found})
    if len(totals) > 1:
        raise InputError(
            f"--out {str(out)!r} holds shards of {totals[0]} and of {totals[1]}: delete the plans.journal files of one "
            "division, or give another folder"
        )
    return sorted(found)


def remove(out: str | Path) -> None:
    """Delete a folder's journals."""
    for shard in shards_in(out):
        (Path(out) / shard.file_name).unlink(missing_ok=True)


def refuse_other(out: str | Path, before: dict[str, Any], now: dict[str, Any], *, state: str) -> None:
    """Refuse a folder whose plans are made from something else than is asked for now.

    Raises:
        InputError: with the first difference.
    """
    found = difference({key: before.get(key) for key in now}, now)
    if found:
        raise InputError(
            f"--out {str(out)!r} holds {state} made with other settings: {found}; give another folder or delete it"
        )


@contextmanager
def opened(out: str | Path, source: dict[str, Any], shards: Sequence[Shard]) -> Iterator[ChunkJournal]:
    """The journals of some shards, begun or resumed.

    Raises:
        InputError: one belongs to another request, is in use by another process, or is damaged.
    """
    with ExitStack() as stack:
        for other in sorted({*shards_in(out)} - {*shards}):
            _check_source(out, other, source)
        files = {}
        for shard in shards:
            files[shard] = stack.enter_context(
                Journal(Path(out) / shard.file_name, source, alternative="give another folder")
            )
        yield ChunkJournal(files)


def _check_source(out: str | Path, shard: Shard, source: dict[str, Any]) -> None:
    """Refuse a shard's journal, which another process may be writing, if it is of another request."""
    try:
        header = next(read_journal(Path(out) / shard.file_name), None)
    except (FileNotFoundError, InputError):  # joining them will tell
        return
    if header is not None:
        refuse_other(out, header.record, source, state=f"shard {shard}")


def remove_leftovers(out: str | Path) -> None:
    """Delete the files that a killed run was writing; only for a run that holds all journals."""
    for left in Path(out).glob(f".*{PART_SUFFIX}"):
        if left.name.startswith(_LEFT_STARTS):
            left.unlink(missing_ok=True)
