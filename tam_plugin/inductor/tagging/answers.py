"""The store of raw answers: a journal that an event loop adds to, so that a kill loses nothing that was paid for.

Whoever waits for an answer to be on the disk does not hold up the others: what arrives while the disk is busy is
written together, by a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.storage import Journal, put_aside

FORMAT = "tam-answers-v1"
_NAMES = {"input_sha256": "the file of queries (SHA-256)", "extra_body": "--extra-body"}
_ALTERNATIVE = "name another --out"
_ANEW = f"{_ALTERNATIVE}, or begin anew with --restart"


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
        self._pending: list[tuple[dict[str, Any], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        if restart:
            put_aside(path, alternative=_ALTERNATIVE)
        self.journal = Journal(path, {"format": FORMAT, **header}, alternative=_ANEW, names=_NAMES)

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.journal.close()

    def read(self) -> Iterator[dict[str, Any]]:
        """The stored answers, oldest first.

        Raises:
            InputError: a line is no answer; the message names it.
        """
        for number, _, values in self.journal.lines():
            if not isinstance(values.get("id"), str) or not isinstance(values.get("value"), dict | None):
                raise InputError(
                    f"{self.path}:{number}: damaged (no stored answer); delete the line to have its query asked again, "
                    "or begin anew with --restart"
                )
            yield values

    async def append(self, answer: dict[str, Any]) -> None:
        """Return once the answer is on the disk. What arrives while the disk is busy is written together.

        Raises:
            InputError: the disk is full or gone.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((answer, stored))
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
                await asyncio.to_thread(self.journal.append, *(answer for answer, _ in batch))
            except InputError as error:
                failure = InputError(f"{error}; the same command resumes from what is there")
            for _, stored in batch:
                if stored.cancelled():
                    continue
                if failure is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(failure)
                    stored.exception()  # marked as seen: the one who waits may be gone
