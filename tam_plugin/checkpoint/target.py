"""The files of a target folder, and putting them there so that a kill at any moment costs one file at most."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.checkpoint.journal import FinishedFiles, check_target
from tam_plugin.checkpoint.mapping import Change, copied
from tam_plugin.checkpoint.source import CONFIG, INDEX, Source
from tam_plugin.checkpoint.writing import (
    CHUNK_BYTES,
    Output,
    Traffic,
    copy_file,
    file_bytes,
    write_bytes,
    write_shard,
)
from tam_plugin.errors import InputError
from tam_plugin.storage import PART_SUFFIX, link_file

MAX_SHARD_BYTES = 5 * 10**9
SPARE_BYTES = 1 << 20
"""Room beside the files themselves, for the journal and the file system's own needs."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to write.

    Attributes:
        transfer: ``link`` or ``copy`` the unchanged shards; None links where one file system holds both.
        overwrite: start again in a folder that holds something else.
        chunk_bytes: bytes in memory at once.
        max_shard_bytes: size of new shards, at most (one tensor may be larger).
        progress: show a bar when stderr is a terminal.
    """

    transfer: str | None = None
    overwrite: bool = False
    chunk_bytes: int = CHUNK_BYTES
    max_shard_bytes: int = MAX_SHARD_BYTES
    progress: bool = False


@dataclass(frozen=True)
class File:
    """A weight file of the target: a whole shard of the source, or newly written tensors."""

    name: str
    nbytes: int
    tensors: dict[str, int]
    whole: Path | None = None
    outputs: tuple[Output, ...] = ()


def files_of(source: Source, change: Change, max_shard_bytes: int) -> list[File]:
    """Weight files of the target: shards without changes, what remains of the others, then what is new."""
    groups: list[tuple[Path | None, list[Output]]] = []
    for shard in source.shards:
        kept = [copied(source, name, name) for name in shard.tensors if name not in change.removed]
        untouched = shard.linkable and len(kept) == len(shard.tensors)
        if kept:
            groups.append((Path(os.path.realpath(shard.path)) if untouched else None, kept))
    groups += [(None, group) for group in _grouped(change.added, max_shard_bytes)]
    files = []
    for number, (whole, outputs) in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors" if len(groups) > 1 else "model.safetensors"
        nbytes = file_bytes(outputs) if whole is None else whole.stat().st_size
        sizes = {output.name: output.entry.nbytes for output in outputs}
        files.append(File(name, nbytes, sizes, whole, () if whole else tuple(outputs)))
    return files


def resolve_transfer(wanted: str | None, source: Source, target: Path, files: list[File]) -> str:
    """``link`` or ``copy``.

    Raises:
        InputError: links were asked for, and the two folders are on different file systems.
    """
    place = _existing(target)
    same = all(file.whole is None or file.whole.stat().st_dev == place.stat().st_dev for file in files)
    if wanted == "link" and not same:
        raise InputError(
            f"--link: {str(source.folder)!r} and {str(target)!r} are on different file systems; use --copy"
        )
    return wanted or ("link" if same else "copy")


def execute(
    source: Source,
    target: Path,
    files: list[File],
    config: dict[str, Any],
    header: dict[str, Any],
    transfer: str,
    options: Options,
) -> tuple[int, Traffic]:
    """Write the folder, resuming from what an earlier run finished.

    Returns:
        Shards that were finished before, and the bytes that went through.

    Raises:
        InputError: the folder belongs to something else, or the disk is too full.
    """
    held = check_target(target, header, overwrite=options.overwrite)
    done = {line["name"]: line["bytes"] for line in held[1:]}
    todo = [file for file in files if done.get(file.name) != file.nbytes]
    moved = [file.nbytes for file in todo if file.whole is None or transfer == "copy"]
    _check_room(target, sum(moved) + sum(path.stat().st_size for path in source.others), anew=not held)
    traffic = Traffic()
    with FinishedFiles(target, header, overwrite=options.overwrite) as journal, _bar(sum(moved), options) as bar:
        traffic.on_write = bar.update
        resumed = sum(journal.finished(file.name, file.nbytes) for file in files)
        if resumed == len(files) and (target / CONFIG).is_file():
            return resumed, traffic
        (target / CONFIG).unlink(missing_ok=True)
        for file in files:
            if not journal.finished(file.name, file.nbytes):
                _put(file, target / file.name, transfer, traffic, options.chunk_bytes)
                journal.add(file.name, file.nbytes)
        for path in source.others:
            copy_file(path, target / path.name, traffic, options.chunk_bytes)
        if len(files) > 1:
            write_bytes(target / INDEX, _json(_index(files)), traffic)
        _remove_strangers(target, files)
        write_bytes(target / CONFIG, _json(config), traffic)
    return resumed, traffic


def _put(file: File, path: Path, transfer: str, traffic: Traffic, chunk_bytes: int) -> None:
    if file.whole is None:
        write_shard(path, list(file.outputs), traffic, chunk_bytes)
    elif transfer == "copy":
        copy_file(file.whole, path, traffic, chunk_bytes)
    else:
        try:
            link_file(file.whole, path)
        except OSError as error:
            raise InputError(f"{str(file.whole)!r} cannot be linked ({error.strerror}): use --copy") from error


def _remove_strangers(target: Path, files: list[File]) -> None:
    """Drop unfinished pieces of an earlier run."""
    known = {file.name for file in files}
    for path in target.glob(f".*{PART_SUFFIX}"):
        path.unlink()
    for path in target.glob("*.safetensors"):
        if path.name not in known:
            path.unlink()


def _grouped(outputs: Iterable[Output], max_bytes: int) -> list[list[Output]]:
    groups: list[list[Output]] = []
    filled = 0
    for output in outputs:
        if not groups or filled + output.entry.nbytes > max_bytes:
            groups.append([])
            filled = 0
        groups[-1].append(output)
        filled += output.entry.nbytes
    return groups


def _index(files: list[File]) -> dict[str, Any]:
    places = {name: file.name for file in files for name in file.tensors}
    total = sum(size for file in files for size in file.tensors.values())
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _check_room(target: Path, needed: int, *, anew: bool) -> None:
    free = shutil.disk_usage(_existing(target)).free
    if anew and target.is_dir():  # --overwrite: its weights go first
        weights = [p for p in target.iterdir() if p.suffix in (".safetensors", ".bin") and not p.is_symlink()]
        free += sum(p.stat().st_blocks * 512 for p in weights if p.stat().st_nlink == 1)
    if needed + SPARE_BYTES > free:
        raise InputError(
            f"the disk of {str(target)!r} is too full: {(needed + SPARE_BYTES) / 1e9:.2f} GB are needed, "
            f"{free / 1e9:.2f} GB are free"
        )


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


def _bar(total: int, options: Options):
    from tqdm import tqdm

    return tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None if options.progress else True)
