"""A file or folder takes its place whole, or not at all.

What is written goes to ``.NAME.part`` beside the target. When it is whole it is put on the disk, given its name in one
step, and the name is put on the disk too; after an error it is removed, and the file that was there stays. A kill can
leave the part, which the next writer of the same target removes. Two writers of one target are an error of the second.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tam_plugin.errors import InputError
from tam_plugin.storage.failures import DISK_REFUSES, cannot_write
from tam_plugin.storage.locks import release, same_file, try_to_hold

PART_SUFFIX = ".part"
_NO_SYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP)


def part_path(path: str | os.PathLike[str]) -> Path:
    """Where a file or folder is written until it is whole."""
    return Path(path).with_name(f".{Path(path).name}{PART_SUFFIX}")


@contextmanager
def replace_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name to write a file by, for what opens its files itself; see :func:`replace_file`.

    Raises:
        InputError: as :func:`replace_file`.
    """
    with _part_of(path) as (_, part):
        yield part


@contextmanager
def replace_file(path: str | os.PathLike[str], *, binary: bool = False) -> Iterator[IO[Any]]:
    """A file of text (UTF-8) or bytes that takes the place of ``path`` when the block ends well, else leaves nothing.

    Raises:
        InputError: the path is empty or no file's, its folder is not there or cannot be written, the disk is full, or
            another process is writing the same file.
    """
    with _part_of(path) as (descriptor, _):
        more: dict[str, Any] = {} if binary else {"encoding": "utf-8", "newline": "\n"}
        with open(descriptor, "wb" if binary else "w", closefd=False, **more) as file:
            yield file


@contextmanager
def replace_descriptor(path: str | os.PathLike[str]) -> Iterator[int]:
    """Like :func:`replace_file`, but for writing at any place of the file."""
    with _part_of(path) as (descriptor, _):
        yield descriptor


def replace_records(path: str | os.PathLike[str], records: Iterable[Mapping[str, Any]]) -> int:
    """Write a file of JSON lines that takes its place whole; returns how many records it has.

    Raises:
        InputError: as :func:`replace_file`.
    """
    count = 0
    with replace_file(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def link_file(source: Path, path: Path) -> None:
    """Give the bytes of ``source`` a second name (a hard link), in the place of what ``path`` was.

    Raises:
        OSError: the file system links no files, or not from there.
    """
    part = part_path(path)
    part.unlink(missing_ok=True)
    os.link(source, part)
    if path.exists() and path.samefile(part):
        part.unlink()  # renaming a link to its own file would leave both names
    else:
        os.replace(part, path)
    sync_folder(path.parent)


def part_folder(path: str | os.PathLike[str]) -> Path:
    """A new, empty folder to make ``path`` in, or the files of ``path``; what a kill left of one is removed.

    Raises:
        InputError: it cannot be made.
    """
    part = part_path(path)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return part


@contextmanager
def replace_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder that takes the place of ``path``, with all that is in it, when the block ends well.

    No system replaces a folder that is not empty in one step: between two renames there is none of that name.

    Raises:
        InputError: it cannot be written.
    """
    target, part = Path(path), part_folder(path)
    old = target.with_name(f".{target.name}.old")
    try:
        shutil.rmtree(old, ignore_errors=True)
        yield part
        for inside in part.rglob("*"):
            _sync(inside)
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError) and _is_of(error, target):
            raise cannot_write(target, error) from error
        raise


def move_files(made: Path, out: Path, *, last: str) -> None:
    """Give the files of a folder their places in another one, ``last`` after all others, and remove the first folder.

    ``last`` is the file by which a reader knows that the others are whole; where they must not be read with an older
    one, remove it before.

    Raises:
        OSError: a file cannot be moved.
    """
    for file in made.iterdir():
        _sync(file)
    for file in sorted(made.iterdir(), key=lambda file: (file.name == last, file.name)):
        if file.name == last:
            sync_folder(out)
        os.replace(file, out / file.name)
    sync_folder(out)
    made.rmdir()


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Put a folder's names on the disk."""
    _sync(folder)


@contextmanager
def _part_of(path: str | os.PathLike[str]) -> Iterator[tuple[int, Path]]:
    target = Path(path)
    try:
        if not str(path).strip() or not target.name or (target.exists() and not target.is_file()):
            raise InputError(f"the output {str(path)!r} cannot be written: it is no file name, or not a regular file's")
        part = part_path(target)
        descriptor = _begin(part, target)
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        yield descriptor, part
        _sync(part)
        os.replace(part, target)
        sync_folder(target.parent)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_of(error, target):
            raise cannot_write(target, error) from error
        raise
    finally:
        release(descriptor)


def _begin(part: Path, target: Path) -> int:
    """A new part, locked. One that is there is never written into: it may be a link to a file of others."""
    while True:
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            if try_to_hold(descriptor, part, quiet=True) and same_file(descriptor, part):
                return descriptor
            os.close(descriptor)
        _remove_left(part, target)


def _remove_left(part: Path, target: Path) -> None:
    """Remove the part that a killed writer left.

    Raises:
        InputError: its writer is alive.
    """
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EACCES):
            raise
        part.unlink(missing_ok=True)
        return
    try:
        if not try_to_hold(descriptor, part, quiet=True):
            raise InputError(f"another process is writing {str(target)!r}: wait for it, end it, or name another file")
        if same_file(descriptor, part):
            part.unlink(missing_ok=True)
    finally:
        release(descriptor)


def _is_of(error: OSError, target: Path) -> bool:
    """Whether an error is that of writing a target: of its own names, or one that only writing gives."""
    names = {str(target), str(part_path(target)), str(target.parent)}
    return str(error.filename) in names or (error.filename is None and error.errno in DISK_REFUSES)


def _sync(path: str | os.PathLike[str]) -> None:
    """Put a file's content, or a folder's names, on the disk, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:  # some network file systems sync no folders
            raise
    finally:
        os.close(descriptor)
