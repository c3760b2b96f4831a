"""SHA-256 of what plans were made from: data files, the policy, the Inductor."""

from __future__ import annotations

import hashlib
import json
import os
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


def inductor_fingerprint(name_or_path: str | None) -> dict[str, str]:
    """Name, and SHA-256 of an Inductor's configuration, tokenizer and weights; the model is not loaded.

    Args:
        name_or_path: None for the one that ships; a checkpoint's folder, or a hub name that is in the local cache.

    Raises:
        InputError: no such Inductor.
    """
    from tam_plugin.inductor.stored import inductor_files, inductor_folder

    folder = inductor_folder(name_or_path)
    sums = {name: file_sha256(folder / name) for name in inductor_files(folder, name_or_path)}
    return {"name": name_or_path or "embedded", "sha256": values_sha256(sums)}
