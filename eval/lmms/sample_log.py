"""One JSON line per request: what was decided, what it cost, and the response."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.storage import Journal, rank_path, rank_paths, read_journal

KEY = ("task", "split", "doc_id", "index")
"""What tells a request from others."""


class SampleLog:
    """The journal of one process.

    Args:
        path: the file; other processes than the first write ``NAME.rankN.SUFFIX`` beside it.
        rank: number of this process.
        argument: the model argument that asked for it.

    Raises:
        InputError: the file cannot be written, or another evaluation is writing it.
    """

    def __init__(self, path: str, rank: int = 0, argument: str = "log") -> None:
        self.path = rank_path(Path(path).expanduser(), rank)
        try:
            self._journal = Journal(self.path)
        except InputError as error:
            raise InputError(f"model_args: {argument} = {path!r}: {error}") from error

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it is on the disk when this returns."""
        self._journal.append(record)

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records of a log and of the other processes' beside it, the latest one of each request.

    Raises:
        InputError: there is no such file, or a line is no record of a request.
    """
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    for file in rank_paths(Path(path)):
        try:
            for number, _, record in read_journal(file):
                if missing := [name for name in KEY if name not in record]:
                    raise InputError(f"{file}:{number}: not a line of a sample log ({missing[0]!r} is missing)")
                records[tuple(record[name] for name in KEY)] = record
        except FileNotFoundError as error:
            raise InputError(f"{str(file)!r} cannot be read: there is no such file") from error
    return list(records.values())
