"""The Inductor inside a checkpoint: a folder of the checkpoint's own, never a path or a hub name that it says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import inside
from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder
from tam_plugin.storage import file_sha256, replace_folder, values_sha256

STORED_NAME = "inductor"
"""Folder of a checkpoint that holds the Inductor it was trained with, where that is not the embedded one."""
_TOKENIZER = ("tokenizer", "vocab", "merges", "special_tokens", "added_tokens")


def stored_inductor(name: str | None, checkpoint: str | os.PathLike[str] | None) -> str | None:
    """The Inductor that ``tam.inductor`` of a checkpoint's ``config.json`` means.

    Args:
        name: what stands there; None for the embedded Inductor.
        checkpoint: the checkpoint's folder; None or a hub name where it is not on this machine as a folder.

    Returns:
        A folder inside the checkpoint, or None.

    Raises:
        ConfigError: the name leads out of the checkpoint.
    """
    if name is None:
        return None
    found = inside(checkpoint, name) if checkpoint is not None and os.path.isdir(checkpoint) else None
    if found is None or not found.is_dir():
        raise ConfigError(
            f"config.json names the Inductor {short(name)} (tam.inductor), which is no folder of the checkpoint: what "
            "a checkpoint names elsewhere is not read; give the Inductor yourself (--inductor PATH; --tam_inductor "
            "PATH in training), or set tam.inductor to null for the embedded one"
        )
    return str(found)


def store_inductor(name_or_path: str, checkpoint: str | os.PathLike[str]) -> str:
    """Copy an Inductor that the user named into a checkpoint's folder.

    Returns:
        What ``tam.inductor`` of the checkpoint says: :data:`STORED_NAME`.

    Raises:
        InputError: there is no such Inductor.
    """
    source, target = inductor_folder(name_or_path), Path(checkpoint) / STORED_NAME
    names = inductor_files(source, name_or_path)
    if target.exists() and os.path.samefile(source, target):
        return STORED_NAME
    with replace_folder(target) as made:
        for name in names:
            shutil.copyfile(source / name, made / name)
    return STORED_NAME


def inductor_files(folder: Path, name_or_path: str | None) -> list[str]:
    """Names of an Inductor's configuration, tokenizer and weights.

    Raises:
        InputError: there is no Inductor in the folder.
    """
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and _counts(p.name)) if folder.is_dir() else []
    if "config.json" not in names:
        raise InputError(f"no Inductor at {name_or_path!r}: expected a folder with config.json and safetensors weights")
    return names


def inductor_folder(name_or_path: str | None) -> Path:
    """The folder of an Inductor: the embedded one's for None, a folder, or that of a hub name in the local cache.

    Raises:
        InputError: there is no such folder, and no hub name of which the files can be had.
    """
    if name_or_path is None:
        return Path(__file__).with_name("default")
    try:
        return model_folder(name_or_path, TEXT_FILES, WEIGHTS[:1])
    except InputError as error:
        raise InputError(f"no Inductor at {error}") from error


def inductor_fingerprint(name_or_path: str | None) -> dict[str, str]:
    """Name, and SHA-256 of an Inductor's configuration, tokenizer and weights; the model is not loaded.

    Args:
        name_or_path: None for the one that ships; a checkpoint's folder, or a hub name that is in the local cache.

    Raises:
        InputError: no such Inductor.
    """
    folder = inductor_folder(name_or_path)
    sums = {name: file_sha256(folder / name) for name in inductor_files(folder, name_or_path)}
    return {"name": name_or_path or "embedded", "sha256": values_sha256(sums)}


def _counts(name: str) -> bool:
    return name == "config.json" or name.endswith((".safetensors", ".model")) or name.startswith(_TOKENIZER)
