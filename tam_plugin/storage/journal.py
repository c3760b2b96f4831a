"""Journals: JSON lines that are only ever added to, from which a killed run resumes.

One rule of durability: when :meth:`Journal.append` returns, its records are on the disk. A record is worth seconds of
computing or the price of an answer; a sync costs milliseconds, and whoever has many small records appends them
together.

One rule of torn lines: what follows the last line end was being written when the process was killed. It is cut off
when the journal is opened to be added to, and passed over when it is read. Any other line that is not a record is
damage, and an error that names it.

A journal may begin with a header, which says what its records are records of: another header is an error that says
what differs. It is locked for as long as it is open.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tam_plugin.errors import InputError
from tam_plugin.files import opened, parse_json
from tam_plugin.storage.atomic import sync_folder
from tam_plugin.storage.failures import cannot_write
from tam_plugin.storage.fingerprints import difference
from tam_plugin.storage.locks import hold, release, same_file

_BLOCK = 1 << 16
_RANK = re.compile(r"(.+)\.rank(\d+)")
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


class Line(NamedTuple):
    """A record in its file: the number of its line from 1, the byte at which it starts, and its values."""

    number: int
    start: int
    record: dict[str, Any]


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one line of JSON in UTF-8; what some readers take for the end of a line is escaped in it."""
    text = json.dumps(record, ensure_ascii=False)
    text = _LINE_ENDS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    return (text + "\n").encode("utf-8", "backslashreplace")  # half a character becomes its escape in JSON


def read_journal(
    path: str | os.PathLike[str], *, max_bytes: int | None = None, remedy: str = "delete the file to start again"
) -> Iterator[Line]:
    """The whole lines of a journal, which another process may be adding to.

    Args:
        path: the file.
        max_bytes: its size, at most; for a file of strangers.
        remedy: what to do about a damaged line.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it cannot be read, is too large, or a line is damaged, which the message names.
    """
    try:
        with opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise InputError(f"{os.fspath(path)!r} is larger than {max_bytes:,} bytes; {remedy}")
            start = 0
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                yield Line(number, start, _record(line, path, number, remedy))
                start += len(line)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{os.fspath(path)!r} cannot be read: {error.strerror or error}") from error


class Journal:
    """A journal that this process alone adds to, while it is open. A context manager.

    Args:
        path: the file; it is made, and its folder, if need be.
        header: what the records are records of, as :meth:`begin` takes it; None for a journal without.
        alternative: what to do other than wait for a process that holds it, or than resume what it belongs to.
        wait: wait for the process that holds it instead of raising an error.
        names: what fields of the header are called in messages, if not by their own names.

    Raises:
        InputError: it cannot be opened, another process holds it, or it belongs to something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        header: Mapping[str, Any] | None = None,
        *,
        alternative: str = "name another file",
        wait: bool = False,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._alternative, self._headed, self._names = alternative, False, names or {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.descriptor = self._open(wait)
        except OSError as error:
            raise cannot_write(path, error) from error
        self._close = weakref.finalize(self, _release, self.descriptor, os.getpid())
        self._close.atexit = False  # the process's end closes it; a forked one must not unlock it
        try:
            _cut_torn_line(self.descriptor)
            if header is not None:
                self.begin(header)
        except BaseException:
            self.close()
            raise

    def _open(self, wait: bool) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                hold(descriptor, self.path, alternative=self._alternative, wait=wait)
            except BaseException:
                os.close(descriptor)
                raise
            if same_file(descriptor, os.path.realpath(self.path)):  # else it was put aside before it was locked
                return descriptor
            release(descriptor)

    @property
    def empty(self) -> bool:
        """Whether it has no line at all."""
        return os.fstat(self.descriptor).st_size == 0

    def begin(self, header: Mapping[str, Any]) -> None:
        """Write the header of an empty journal, or check that of another one.

        Args:
            header: plain values.

        Raises:
            InputError: the journal has another header; the message says what differs.
        """
        if self.empty:
            self.append(header)
            sync_folder(self.path.parent)
        else:
            found = next(read_journal(self.path, remedy=self._remedy)).record
            if changed := difference(found, json.loads(json.dumps(header))):
                field = re.split(r"[. \[]", changed, maxsplit=1)[0]
                changed = self._names.get(field, field) + changed.removeprefix(field)
                raise InputError(
                    f"{str(self.path)!r} belongs to another run: {changed}; resume that one, or {self._alternative}"
                )
        self._headed = True

    def lines(self) -> Iterator[Line]:
        """The records and their places, without the header.

        Raises:
            InputError: a line is damaged.
        """
        lines = read_journal(self.path, remedy=self._remedy)
        if self._headed:
            next(lines)
        return lines

    def record(self, start: int) -> dict[str, Any]:
        """Read the record that starts at a byte."""
        parts: list[bytes] = []
        while not parts or b"\n" not in parts[-1]:
            parts.append(os.pread(self.descriptor, _BLOCK, start + _BLOCK * len(parts)))
            if not parts[-1]:
                raise InputError(f"{str(self.path)!r} has become shorter while it was in use")
        line = b"".join(parts).partition(b"\n")[0]
        return _record(line, self.path, None, self._remedy)

    def append(self, *records: Mapping[str, Any]) -> int:
        """Add records; they are on the disk when this returns.

        Returns:
            The byte at which the first of them starts.

        Raises:
            InputError: the disk is full or gone; nothing was added.
        """
        start = os.fstat(self.descriptor).st_size
        view = memoryview(b"".join(map(json_line, records)))
        try:
            while view:
                view = view[os.write(self.descriptor, view) :]
            os.fsync(self.descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self.descriptor, start)  # what follows must not be added to half a line
            raise cannot_write(self.path, error) from error
        return start

    def clear(self) -> None:
        """Remove all lines, to start again."""
        os.ftruncate(self.descriptor, 0)
        os.fsync(self.descriptor)
        self._headed = False

    def close(self) -> None:
        """Close and unlock it; a journal that is garbage-collected is closed too."""
        self._close()

    @property
    def _remedy(self) -> str:
        return f"delete the file to start again, or {self._alternative}"

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def put_aside(path: Path, *, alternative: str = "name another file") -> None:
    """Rename a journal that is not empty to ``NAME.old``, in the place of an older one.

    Raises:
        InputError: another process holds it.
    """
    with Journal(path, alternative=alternative) as journal:
        if not journal.empty:
            os.replace(path, path.with_name(f"{path.name}.old"))
            sync_folder(path.parent)


def rank_path(path: Path, rank: int) -> Path:
    """The file of one of several processes, beside the first one's: ``NAME.rankN.SUFFIX``."""
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def rank_of(path: Path) -> tuple[Path, int]:
    """The first process's file, and the number of the process whose file this is."""
    match = _RANK.fullmatch(path.stem)
    return (path.with_name(match[1] + path.suffix), int(match[2])) if match else (path, 0)


def rank_paths(path: Path) -> list[Path]:
    """The first process's file, and those of the other processes beside it."""
    beside = [other for other in path.parent.glob("*") if other != path and rank_of(other)[0] == path]
    return [path, *sorted(beside, key=lambda other: rank_of(other)[1])]


def _record(line: bytes, path: str | os.PathLike[str], number: int | None, remedy: str) -> dict[str, Any]:
    try:
        record = parse_json(line, strict=False)
        if not isinstance(record, dict):
            raise ValueError(f"expected a JSON object, found {type(record).__name__}")
    except ValueError as error:
        where = os.fspath(path) if number is None else f"{os.fspath(path)}:{number}"
        raise InputError(f"{where}: damaged ({str(error)[:100]}); {remedy}") from error
    return record


def _release(descriptor: int, owner: int) -> None:
    if os.getpid() == owner:
        release(descriptor)
    else:
        os.close(descriptor)


def _cut_torn_line(descriptor: int) -> None:
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        at = os.pread(descriptor, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
