"""What to do about an error of the operating system, and the error for a file that cannot be written."""

from __future__ import annotations

import errno
import os

from tam_plugin.errors import InputError

REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk; rerunning the same command resumes where it can",
    errno.EDQUOT: "free some of your quota, or write elsewhere; rerunning the same command resumes where it can",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f), or write to a file system that takes larger ones",
    errno.EROFS: "name a place that can be written to",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.ENOENT: "check the name; it may have been moved or deleted meanwhile",
    errno.ENOTDIR: "check the name: a part of it is no folder",
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "name another place, or move what is there",
    errno.ENOTEMPTY: "name another place, or move what is there",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "its links lead in a circle: name the file itself",
    errno.ENXIO: "name a regular file, not a device or a socket",
    errno.ENODEV: "name a regular file, not a device",
    errno.EIO: "the disk failed to read or write it: check the disk, or name another place",
    errno.ESTALE: "the network disk lost it: try again",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENFILE: "close other programs: the machine has too many open files",
    errno.EAGAIN: "raise the number of processes (ulimit -u), or give fewer workers",
    errno.ENOMEM: "close other programs, or give a smaller batch or model",
    errno.EXDEV: "name a place on the same disk",
    errno.EBUSY: "wait until nothing else uses it",
    errno.ETXTBSY: "wait until nothing else uses it",
}
"""What to do, by the number of the error."""

DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing gives."""


def cannot_write(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The error for a file that cannot be written: its name, the reason and what to do, on one line."""
    reason = os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "name another place")
    return InputError(f"{os.fspath(path)!r} cannot be written: {reason[:1].lower()}{reason[1:]}; {remedy}")
