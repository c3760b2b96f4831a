"""One process at a time: an advisory lock on a file, held for as long as the file is open.

The lock is ``flock``'s, so it ends with its process however that ends, and nothing is left to be removed. It is on the
very file that is written where there is one (a journal), else on an empty file in the folder. The file is open for
writing, because network file systems lock no other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.storage.failures import cannot_write

_NOT_SUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF)


def hold(descriptor: int, path: str | os.PathLike[str], *, alternative: str, wait: bool = False) -> None:
    """Lock an open file for this process.

    Args:
        descriptor: of the file, open for writing.
        path: its name, for messages.
        alternative: what to do other than wait for the process that holds it, such as ``"name another folder"``.
        wait: wait for the other process instead of raising an error.

    Raises:
        InputError: another process holds it; the message names the process.
    """
    if not try_to_hold(descriptor, path, wait=wait):
        raise InputError(
            f"{os.fspath(path)!r} is in use by another process{_holder(descriptor)}: wait for it, end it, or "
            f"{alternative}"
        )


def try_to_hold(descriptor: int, path: str | os.PathLike[str], *, wait: bool = False, quiet: bool = False) -> bool:
    """Lock an open file; False if another process holds it. A file system without locks is a notice, unless quiet."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise cannot_write(path, error) from error
        if not quiet:
            warnings.warn(
                f"the file system of {os.fspath(path)!r} has no locks ({error.strerror}): see to it that no second "
                "process writes there",
                TamNotice,
                stacklevel=3,
            )
    return True


def release(descriptor: int) -> None:
    """Unlock and close; also what a forked process inherited is unlocked."""
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


@contextmanager
def locked(path: str | os.PathLike[str], *, alternative: str) -> Iterator[int]:
    """A lock on a file that is made if it is not there; yields its descriptor, which a child process may inherit.

    Raises:
        InputError: the file cannot be made, or another process holds it.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise cannot_write(path, error) from error
    try:
        hold(descriptor, path, alternative=alternative)
        yield descriptor
    finally:
        release(descriptor)


def same_file(descriptor: int, path: str | os.PathLike[str]) -> bool:
    """Whether a name still stands for an open file: between opening and locking it may have been given to another."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _holder(descriptor: int) -> str:
    """`` (process N)`` for the process whose open file has the lock, as far as this system tells."""
    mine = os.fstat(descriptor)
    with contextlib.suppress(OSError):
        for process in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                for opened in os.listdir(f"/proc/{process}/fd"):
                    if os.path.samestat(mine, os.stat(f"/proc/{process}/fd/{opened}")):
                        info = Path(f"/proc/{process}/fdinfo/{opened}").read_text(encoding="utf-8")
                        if "FLOCK" in info:
                            return f" (process {process})"
    return ""
