"""One JSON line a request: what was decided, what it cost, what came out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError


class SampleLog:
    """Appends to a JSONL file; a line torn by a killed run is dropped first.

    Args:
        path: the file; other processes than the first write ``NAME.rankN.SUFFIX`` beside it.
        rank: number of this process.
        argument: the model argument that asked for it.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: str, rank: int = 0, argument: str = "log") -> None:
        self.path = _of_rank(Path(path).expanduser(), rank)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _drop_torn_line(self.path)
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise InputError(f"model_args: {argument} = {path!r} cannot be written: {error}") from error

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records of a log and of the other processes' beside it, the latest one of each request.

    Raises:
        InputError: there is no such file, or a line is no JSON object.
    """
    first = Path(path)
    records: dict[tuple[Any, ...], dict[str, Any]] = {}
    for file in [first, *sorted(first.parent.glob(f"{first.stem}.rank*{first.suffix}"))]:
        try:
            lines = file.read_bytes().split(b"\n")[:-1]  # what follows the last line end is torn
        except OSError as error:
            raise InputError(f"{str(file)!r} cannot be read: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            try:
                record = json.loads(line)
                key = (record["task"], record["split"], record["doc_id"], record["index"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{file}:{number}: not a line of a sample log") from error
            records[key] = record
    return list(records.values())


def _of_rank(path: Path, rank: int) -> Path:
    return path if rank == 0 else path.with_name(f"{path.stem}.rank{rank}{path.suffix}")


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
