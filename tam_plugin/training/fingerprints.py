"""SHA-256 of what plans were made from: data files, the policy, the Inductor."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder

_BLOCK = 1 << 20
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        InputError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
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
    folder = _folder(name_or_path)
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and _counts(p.name)) if folder.is_dir() else []
    if "config.json" not in names:
        raise InputError(f"no Inductor at {name_or_path!r}: expected a folder with config.json and safetensors weights")
    sums = {name: file_sha256(folder / name) for name in names}
    return {"name": name_or_path or "embedded", "sha256": values_sha256(sums)}


def _folder(name_or_path: str | None) -> Path:
    if name_or_path is None:
        import tam_plugin.inductor

        return Path(tam_plugin.inductor.__file__).with_name("default")
    try:
        return model_folder(name_or_path, TEXT_FILES, WEIGHTS[:1])
    except InputError as error:
        raise InputError(f"no Inductor at {error}") from error


def _counts(name: str) -> bool:
    return name == "config.json" or name.endswith((".safetensors", ".model")) or name.startswith(_TOKENIZER)
