"""The store of raw answers: JSON lines that are only ever added to, so that a kill loses nothing that was paid for.

The first line says what the answers are answers to; each other line is one answer. A line counts once it is on the
disk; a last line without its end was being written when the process died, and is cut off.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.inductor.data.records import cut_torn_line
from tam_plugin.inductor.tagging.exchange import loads

FORMAT = "tam-answers-v1"
_NAMES = {"input_sha256": "file of queries (SHA-256)", "extra_body": "--extra-body"}


class AnswerStore:
    """One process's exclusive hold on a store. A context manager; :meth:`append` runs in an event loop.

    Args:
        path: the file, created if absent.
        header: what the answers depend on, as JSON values by name.
        restart: put an existing store aside as ``PATH.old`` and begin anew.

    Raises:
        InputError: another process holds the store, it cannot be read or written, or its header differs.
    """

    def __init__(self, path: Path, header: dict[str, Any], *, restart: bool = False) -> None:
        self.path = path
        self._pending: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._file = _open_locked(path)
        try:
            if restart and os.fstat(self._file).st_size:
                os.replace(path, f"{path}.old")
                os.close(self._file)
                self._file = _open_locked(path)
            cut_torn_line(self._file)
            if os.fstat(self._file).st_size:
                self._check_header({"format": FORMAT, **header})
            else:
                self._write(_line({"format": FORMAT, **header}))
                _sync_folder(path.parent)
        except OSError as error:
            os.close(self._file)
            raise InputError(f"the store of answers {str(path)!r} cannot be used: {error}") from error
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self) -> Iterator[dict[str, Any]]:
        """The stored answers, oldest first.

        Raises:
            InputError: a line is no JSON object; the message names it.
        """
        lines = self._lines()
        next(lines)
        for number, values in lines:
            if not isinstance(values.get("id"), str) or not isinstance(values.get("value"), dict | None):
                raise self._damaged(number)
            yield values

    async def append(self, answer: dict[str, Any]) -> None:
        """Return once the answer is on the disk. What arrives while the disk is busy is written together.

        Raises:
            InputError: the disk is full or gone.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((_line(answer), stored))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_pending())
        # Whoever waits may be cancelled; the answer is paid for and is written all the same.
        await asyncio.shield(stored)

    async def flush(self) -> None:
        """Wait until everything that was appended is on the disk."""
        if self._writer is not None:
            await self._writer

    async def _write_pending(self) -> None:
        while self._pending:
            batch, self._pending = self._pending, []
            failure = None
            try:
                await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
            except OSError as error:
                failure = InputError(
                    f"the store of answers {str(self.path)!r} cannot be written: {error}; the same command goes on "
                    "from what is there"
                )
            for _, stored in batch:
                if stored.cancelled():
                    continue
                if failure is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(failure)
                    stored.exception()  # marked as seen: the one who waits may be gone

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)

    def _check_header(self, header: dict[str, Any]) -> None:
        _, found = next(self._lines())
        if found.get("format") != FORMAT:
            raise InputError(f"{str(self.path)!r} is no store of answers of this version; name another --out")
        for name, value in header.items():
            if found.get(name) != value:
                raise InputError(
                    f"the store {str(self.path)!r} was made with another {_NAMES.get(name, name)}: "
                    f"{_shown(found.get(name))}, now {_shown(value)}; go on as before, name another --out, "
                    "or begin anew with --restart"
                )

    def _lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    values = loads(line)
                except (ValueError, RecursionError):
                    values = None
                if not isinstance(values, dict):
                    raise self._damaged(number)
                yield number, values

    def _damaged(self, number: int) -> InputError:
        return InputError(
            f"{self.path}, line {number} is no stored answer; delete the line to have its query asked again, "
            "or begin anew with --restart"
        )


def _open_locked(path: Path) -> int:
    import fcntl

    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise InputError(f"the store of answers {str(path)!r} cannot be opened: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking the file may have been put aside by --restart.
        mine = os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        mine = False
    if not mine:
        os.close(file)
        raise InputError(f"another process is at work on {str(path)!r}; wait for it, or name another --out")
    return file


def _sync_folder(folder: Path) -> None:
    """Put the new file's name on the disk, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _line(values: dict[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode("ascii")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."
