"""What a conversion has finished, in its target folder: what is being made of what, and which files are whole.

The first line of the journal says which source and settings the folder belongs to; each further line names a finished
file. It is kept after the conversion, so that rerunning the command does nothing, and converting back finds
what the dense config.json said.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from tam_plugin.checkpoint.source import CONFIG, JOURNAL
from tam_plugin.errors import InputError
from tam_plugin.storage import PART_SUFFIX, Journal, difference, read_journal, sync_folder

VERSION = 1
MAX_JOURNAL_BYTES = 16 << 20
_ALTERNATIVE = "name another folder"


def read_target(folder: Path) -> list[dict[str, Any]]:
    """The header and the finished files of a folder's journal; nothing where there is none.

    Raises:
        InputError: the journal is damaged.
    """
    try:
        lines = list(read_journal(folder / JOURNAL, max_bytes=MAX_JOURNAL_BYTES, remedy="name a new folder"))
    except FileNotFoundError:
        return []
    for line in lines[1:]:
        if not (isinstance(line.record.get("name"), str) and isinstance(line.record.get("bytes"), int)):
            raise InputError(f"{folder / JOURNAL}:{line.number}: damaged (no finished file); name a new folder")
    return [line.record for line in lines]


def dense_part(folder: Path) -> dict[str, Any] | None:
    """What a folder's journal remembers of the dense checkpoint's config.json; None where nothing usable stands."""
    try:
        journal = read_target(folder)
    except InputError:
        return None
    dense = journal[0].get("dense") if journal else None
    return dense if isinstance(dense, dict) else None


class FinishedFiles:
    """The target folder, locked for one process, with its journal open.

    Args:
        folder: the target; it is made if need be.
        header: what identifies the conversion.
        overwrite: start again in a folder that holds something else.

    Raises:
        InputError: the folder holds something else, belongs to another conversion, or is in use.
    """

    def __init__(self, folder: Path, header: dict[str, Any], *, overwrite: bool) -> None:
        self.folder = folder
        check_target(folder, header, overwrite=overwrite)
        self._journal = Journal(folder / JOURNAL, alternative=_ALTERNATIVE)
        try:
            # Again, now that nobody else changes it.
            held = check_target(folder, header, overwrite=overwrite)
            if not held:
                _clear(folder)
                self._journal.clear()
            self._journal.begin({"version": VERSION, **header})
            self.done: dict[str, int] = {line["name"]: line["bytes"] for line in held[1:]}
        except BaseException:
            self._journal.close()
            raise

    def finished(self, name: str, nbytes: int) -> bool:
        """Whether a file was finished by an earlier run, and is still there in that size."""
        file = self.folder / name
        return self.done.get(name) == nbytes and file.is_file() and file.stat().st_size == nbytes

    def add(self, name: str, nbytes: int) -> None:
        """Note that a file is whole, under its own name and on the disk."""
        if self.done.get(name) != nbytes:
            self.done[name] = nbytes
            self._journal.append({"name": name, "bytes": nbytes})

    def __enter__(self) -> FinishedFiles:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._journal.close()


def check_target(folder: Path, header: dict[str, Any], *, overwrite: bool) -> list[dict[str, Any]]:
    """Lines of the journal that this conversion resumes from; none for a folder that is empty or given up.

    Raises:
        InputError: the folder holds something else, or belongs to another conversion.
    """
    header = json.loads(json.dumps({"version": VERSION, **header}))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is not a folder: expected the name of a folder for the new checkpoint")
    try:
        held = read_target(folder)
    except InputError:
        if not overwrite:
            raise
        held = []
    if held and held[0] == header:
        return held
    if overwrite or not folder.exists():
        return []
    if held:
        raise InputError(
            f"{str(folder)!r} belongs to another conversion ({_difference(held[0], header)}): give the same source and "
            "settings to resume it, --overwrite to start again, or another folder"
        )
    inside = [path.name for path in folder.iterdir() if path.name != JOURNAL]
    if inside:
        raise InputError(
            f"{str(folder)!r} is not empty (it holds {sorted(inside)[0]!r}): name a new folder, or give --overwrite"
        )
    return []


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    changed = difference(before.get("settings"), now["settings"], "settings")
    for name in ("source", "adapter"):  # their files' sizes and times would say nothing to a reader
        if changed is None and before.get(name) != now.get(name):
            changed = f"another {name}"
    return changed or "it was begun by another version"


def _clear(folder: Path) -> None:
    """Remove what would make the folder load as a model; config.json first. The journal's own lines go last."""
    inside = [path for path in folder.iterdir() if path.is_file() or path.is_symlink()]
    weights = (".safetensors", ".bin", ".index.json", PART_SUFFIX)
    for path in [path for path in inside if path.name == CONFIG]:
        path.unlink()
        sync_folder(folder)
    for path in [path for path in inside if path.name.endswith(weights)]:
        path.unlink()
