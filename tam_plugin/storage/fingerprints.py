"""SHA-256 of files and of plain values, and the first difference between two sets of values."""

from __future__ import annotations

import hashlib
import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.files import opened

_BLOCK = 1 << 20


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with opened(path) as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def data_file(path: str | Path) -> dict[str, Any]:
    """Path, size in bytes and SHA-256 of a data file.

    Raises:
        InputError: it cannot be read.
    """
    sha256 = file_sha256(path)
    return {"path": str(path), "bytes": os.path.getsize(path), "sha256": sha256}


def values_sha256(values: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def difference(before: Any, now: Any, name: str = "") -> str | None:
    """The first field in which two plain values differ, with both values; None if they are equal."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}, key=str):
            found = difference(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return None
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return next((d for i, (a, b) in pairs if (d := difference(a, b, f"{name}[{i}]"))), None)
    return None if before == now else f"{name} is {reprlib.repr(now)}, was {reprlib.repr(before)}"
