"""The journal of a conversion, in its target folder: what is being made of what, and which files are finished.

The first line says which source and settings the folder belongs to; each further line names a finished file. It
stays when all is done, so that the same command again has nothing to do, and the way back finds what a dense
config.json said.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tam_plugin.checkpoint.source import CONFIG, JOURNAL
from tam_plugin.checkpoint.writing import sync_folder
from tam_plugin.errors import InputError
from tam_plugin.files import parse_json, read_bytes

VERSION = 1
MAX_JOURNAL_BYTES = 16 << 20


def read_journal(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of a folder's journal; a last line that a kill cut off is dropped."""
    path = folder / JOURNAL
    if not path.is_file():
        return []
    try:
        lines = read_bytes(path, max_bytes=MAX_JOURNAL_BYTES).split(b"\n")[:-1]
        values = [parse_json(line, strict=False) for line in lines]
    except (OSError, ValueError):
        return []
    return values if all(map(_is_line, values[1:])) and all(isinstance(value, dict) for value in values[:1]) else []


def dense_part(folder: Path) -> dict[str, Any] | None:
    """What a folder's journal remembers of the dense checkpoint's config.json; None where nothing usable stands."""
    journal = read_journal(folder)
    dense = journal[0].get("dense") if journal else None
    return dense if isinstance(dense, dict) else None


def _is_line(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("bytes"), int)


class Journal:
    """The target folder, locked for one process, with its journal open.

    Args:
        folder: the target; it is made if need be.
        header: what identifies the conversion.
        overwrite: begin anew in a folder that holds something else.

    Raises:
        InputError: the folder holds something else, belongs to another conversion, or is in use.
    """

    def __init__(self, folder: Path, header: dict[str, Any], *, overwrite: bool) -> None:
        self.folder = folder
        header = json.loads(json.dumps({"version": VERSION, **header}))
        held = check_target(folder, header, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            if not held:
                _clear(folder)
            self._open(header, held)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, header: dict[str, Any], held: list[dict[str, Any]]) -> None:
        self.done: dict[str, int] = {line["name"]: line["bytes"] for line in held[1:]}
        path = self.folder / JOURNAL
        whole = sum(len(_line(value)) for value in held)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if os.fstat(self._fd).st_size != whole:  # a torn last line
            os.ftruncate(self._fd, whole)
        os.lseek(self._fd, whole, os.SEEK_SET)
        if not held:
            self._append(header)
            sync_folder(self.folder)

    def finished(self, name: str, nbytes: int) -> bool:
        """Whether a file was finished by an earlier run, and is still there in that size."""
        file = self.folder / name
        return self.done.get(name) == nbytes and file.is_file() and file.stat().st_size == nbytes

    def add(self, name: str, nbytes: int) -> None:
        """Note that a file is whole, under its own name and on the disk."""
        if self.done.get(name) != nbytes:
            self.done[name] = nbytes
            self._append({"name": name, "bytes": nbytes})

    def _append(self, value: dict[str, Any]) -> None:
        os.write(self._fd, _line(value))
        os.fsync(self._fd)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        os.close(self._fd)
        os.close(self._lock)


def check_target(folder: Path, header: dict[str, Any], *, overwrite: bool) -> list[dict[str, Any]]:
    """Lines of the journal that this conversion goes on from; none for a folder that is empty or given up.

    Raises:
        InputError: the folder holds something else, or belongs to another conversion.
    """
    header = json.loads(json.dumps({"version": VERSION, **header}))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected the name of a folder for the new checkpoint")
    held = read_journal(folder)
    if held and held[0] == header:
        return held
    if overwrite or not folder.exists():
        return []
    inside = [path.name for path in folder.iterdir()]
    if held:
        raise InputError(
            f"{str(folder)!r} belongs to another conversion ({_difference(held[0], header)}): give the same source and "
            "settings to go on with it, --overwrite to begin anew, or another folder"
        )
    if inside and inside != [JOURNAL]:
        raise InputError(
            f"{str(folder)!r} is not empty (it holds {sorted(inside)[0]!r}): name a new folder, or give --overwrite"
        )
    return []


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    for name in ("settings", "source", "adapter"):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if not (isinstance(old, dict) and isinstance(new, dict)):
            return f"another {name.removesuffix('s')}"
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return f"its {name} differ in {keys[0]}"
    return "it was begun by another version"


def _clear(folder: Path) -> None:
    """Remove what would make the folder load as a model; config.json first."""
    inside = [path for path in folder.iterdir() if path.is_file() or path.is_symlink()]
    weights = (".safetensors", ".bin", ".index.json", ".part")
    gone = [path for path in inside if path.name == CONFIG]
    gone += [path for path in inside if path.name.endswith(weights) or path.name == JOURNAL]
    for path in gone:
        path.unlink()
        if path.name == CONFIG:
            sync_folder(folder)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _lock(folder: Path) -> int:
    import fcntl

    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise InputError(
            f"another process is at work on {str(folder)!r}: wait for it, or name another folder"
        ) from None
    return fd
