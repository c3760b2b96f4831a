"""Models by their config.json: what stands under a name, and whether it is a SigLIP."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from tam_plugin.bounds import check_sizes
from tam_plugin.config import short
from tam_plugin.errors import InputError, TamError, reason_of
from tam_plugin.files import read_json
from tam_plugin.hub import missing_folder
from tam_plugin.model_folder import check_folder

SIGLIP_VISION = "siglip_vision_model"


def read_config(name_or_path: str) -> dict[str, Any]:
    """config.json of a folder or hub name, as a mapping.

    Raises:
        InputError: there is none.
    """
    from transformers.utils import cached_file

    if not name_or_path.strip():
        raise InputError("the model's name is empty: expected a checkpoint directory or a hub name")
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.stat(name_or_path)  # raises for a name that no folder can have
        if problem := missing_folder(name_or_path):
            raise InputError(problem)
        if not os.path.isdir(name_or_path):
            return read_json(str(cached_file(name_or_path, "config.json")))
        path = Path(name_or_path) / "config.json"
        if not path.exists():
            raise InputError(f"{name_or_path!r} holds no config.json: expected a model checkpoint directory")
        return read_json(path)
    except TamError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"no model can be read from {short(name_or_path)}: there is no such folder, and no model of this name in "
            "the local hub cache or, as far as it can be reached, on the hub"
        ) from error
    except Exception as error:  # the HTTP library raises its own
        raise InputError(f"no model can be read from {short(name_or_path)}: {reason_of(error)}") from error


def checkpoint_config(name_or_path: str) -> dict[str, Any]:
    """config.json of a checkpoint that is about to be loaded, its folder and its sizes checked.

    Raises:
        InputError: there is none, or the folder contains files that do not belong in a checkpoint.
        ConfigError: a size is out of range.
    """
    values = read_config(name_or_path)
    if os.path.isdir(name_or_path):
        check_folder(name_or_path)
    check_sizes(values, f"{name_or_path}/config.json")
    return values


def siglip_vision_fields(values: dict[str, Any]) -> dict[str, Any] | None:
    """Fields of the vision encoder in the config.json of a SigLIP; None for another model.

    Both layouts are known: ``siglip_vision_model``, and ``siglip`` with the fields under ``vision_config``.
    """
    kind, nested = values.get("model_type"), values.get("vision_config")
    if kind == SIGLIP_VISION:
        return values
    return {**(nested or {}), "model_type": SIGLIP_VISION} if kind == "siglip" else None


def is_siglip_folder(tower: str) -> bool:
    """Whether a tower's name is a folder on this machine with a SigLIP in it."""
    if not os.path.isdir(tower):
        return False
    try:
        return siglip_vision_fields(read_config(tower)) is not None
    except InputError:
        return False


def is_siglip(tower: str) -> bool:
    """Whether a dense checkpoint's tower is a SigLIP: a hub name that the host knows as such, or a SigLIP's folder."""
    if os.path.exists(tower):
        return is_siglip_folder(tower)
    return "siglip" in tower and not tower.startswith(("openai", "laion")) and "ShareGPT4V" not in tower
