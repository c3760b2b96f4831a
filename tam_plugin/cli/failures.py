"""Errors that are no defects: what the machine refuses (a full disk, a quota, no memory), and what to do about it."""

from __future__ import annotations

import errno
import os
import re

from tam_plugin.errors import TamError, one_line, reason_of
from tam_plugin.storage.failures import REMEDIES

_OS_ERROR = re.compile(r"\(?os error (\d+)\)?|\[Errno (\d+)\]")
_NO_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory", "std::bad_alloc")
_NOT_WRITTEN = ("file write failed", "iostream error", "PytorchStreamWriter failed", "unexpected pos")


def machine_failure(error: BaseException) -> str | None:
    """One line for an error that the user can fix; None for any other, which is a defect.

    Libraries wrap the system's errors in their own, so causes and messages are looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        found = _failure(seen)
        if found is not None:
            return found
        seen = seen.__cause__
    return None


def _failure(error: BaseException) -> str | None:
    text = one_line(error)
    if isinstance(error, MemoryError) or any(word in text.lower() for word in _NO_MEMORY):
        return f"out of memory: close other programs, or give a smaller batch or model ({text[:200] or 'no memory'})"
    number = getattr(error, "errno", None) if isinstance(error, OSError) else _number(text)
    if number in REMEDIES:
        names = [repr(name) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
        problem = os.strerror(number)
        where = f"{one_line(' and '.join(names))}: " if names else ""
        return f"{where}{problem[:1].lower()}{problem[1:]}; {REMEDIES[number]}"
    if isinstance(error, RuntimeError) and any(word in text for word in _NOT_WRITTEN):
        return f"a file cannot be written ({text[:200]}); {REMEDIES[errno.ENOSPC]}"
    if isinstance(error, UnicodeEncodeError) and error.encoding.startswith("utf") and error.reason.startswith("surrog"):
        half = error.object[error.start : error.end]
        return f"a text contains a lone surrogate (half a character), {half!r}: give valid Unicode"
    return None


def _number(text: str) -> int | None:
    found = _OS_ERROR.search(text)
    return int(found[1] or found[2]) if found else None


def describe(error: Exception) -> tuple[str, int]:
    """One line for an error, and the exit code: 2 for what the user can fix, 1 for a defect."""
    if isinstance(error, TamError):
        return str(error), 2
    failure = machine_failure(error)
    if failure is not None:
        return failure, 2
    if isinstance(error, ImportError):  # a package that stands beside the one asked for may be what is broken
        return f"{reason_of(error)[:500]} ('tam doctor' tells what can run here and what to do)", 1
    text = one_line(error)
    return f"{type(error).__name__}: {text[:500]} (a defect: --debug shows where)", 1
