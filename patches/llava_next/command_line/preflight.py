"""Checks before training loads any weight: what the arguments ask of the checkpoint that they start from."""

from __future__ import annotations

import os
from typing import Any

from tam_plugin.bounds import check_sizes
from tam_plugin.config import TamConfig, short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.hub import missing_folder
from tam_plugin.model_folder import check_folder, weight_shapes
from tam_plugin.patches.checkpoint_checks import check_experts
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER, check_files, tam_config_from_args
from tam_plugin.patches.llava_next.command_line.host_settings import check_host_settings, check_pinpoints
from tam_plugin.patches.llava_next.model.structure import check_same_structure, check_zero3, stage_of
from tam_plugin.patches.llava_next.model.tower import siglip_config
from tam_plugin.patches.sources import is_siglip, read_config, siglip_vision_fields
from tam_plugin.training.zero3 import ZERO_3

SIDE = 384
"""Pixels per side of the host's own SigLIP tower, whose configuration it does not read."""
_STILL_IMAGES_ONLY = ("mistral", "gemma", "mpt")


def check_training(flags: Any) -> None:
    """Refuse what cannot work: bad values, missing files, a tower that cannot be upgraded.

    Args:
        flags: the host's arguments of the model, the data and the training in one object, and ``tam_args``; what is
            not on it is not looked at.

    Raises:
        ConfigError: with the argument or field, its value and what was expected.
        InputError: no model, or no SigLIP, can be read under the given name.
    """
    start = flags.model_name_or_path
    try:
        values = read_config(start)
    except InputError as error:
        raise InputError(f"--model_name_or_path: {error}") from error
    check_sizes(values, f"{start}/config.json")
    check_language_model(values, start)
    check_host_settings(flags)
    tower = values.get("mm_vision_tower")
    stored = stored_in(values, start) if tower == VISION_TOWER else None
    config = tam_config_from_args(flags, stored, folder=start)
    check_files(config)
    side = (config.vision_encoder or {}).get("image_size", SIDE)
    if stored is not None:
        check_same_structure(stored, config)
        check_experts(local_shapes(start), stored.moe, start)
    elif tower is None:
        side = siglip_config(check_siglip_source(flags.vision_tower_pretrained)).image_size
    else:
        check_tower_path(tower, start)
        if not is_siglip(tower):
            raise ConfigError(not_siglip(tower))
    check_pinpoints(flags, side)
    if tower is not None and stage_of(getattr(flags, "deepspeed", None)) == ZERO_3:
        check_zero3(stored, config, flags)


def stored_in(values: dict[str, Any], start: str) -> TamConfig:
    """The configuration in a TAM checkpoint's config.json.

    Raises:
        ConfigError: there is none, or it is bad.
    """
    if values.get("tam") is None:
        raise ConfigError(f"{start!r}: config.json has mm_vision_tower = 'tam' but no 'tam' section")
    try:
        return TamConfig.from_dict(values["tam"])
    except ConfigError as error:
        raise ConfigError(f"{start!r}: config.json, section tam: {error}") from error


def check_language_model(values: dict[str, Any], start: str) -> None:
    """Refuse language models whose classes in the host know no videos.

    Raises:
        ConfigError: Mistral, Gemma or MPT; the host's classes of these take no modality, so every stride would be lost.
    """
    kind = str(values.get("model_type", "")).removeprefix("llava_")
    if kind in _STILL_IMAGES_ONLY:
        raise ConfigError(
            f"--vision_tower tam: {start!r} is a {kind} model, whose class in LLaVA-NeXT takes still images only; "
            "expected a Qwen, Qwen-MoE, Llama or Mixtral model"
        )


def check_tower_path(tower: Any, start: str) -> None:
    """Refuse a dense checkpoint whose tower is no text, or a folder that is not on this machine.

    Raises:
        ConfigError: no text.
        InputError: no such folder.
    """
    if not isinstance(tower, str):
        raise ConfigError(f"{start!r}: config.json has mm_vision_tower = {short(tower)}: expected a name or a folder")
    if problem := missing_folder(tower):
        raise InputError(
            f"{start!r}: config.json names its vision tower (mm_vision_tower) by a path, and {problem}. Correct the "
            "entry: a SigLIP encoder's folder on this machine, or google/siglip-so400m-patch14-384"
        )


def not_siglip(tower: str) -> str:
    """The message for a tower that cannot be upgraded."""
    return (
        f"--vision_tower tam: the checkpoint's vision tower is {tower!r}; expected a SigLIP tower (such as "
        "google/siglip-so400m-patch14-384, or a SigLIP encoder's folder), a TAM tower, or a plain language model with "
        "--vision_tower_pretrained"
    )


def check_siglip_source(name_or_path: str | None, named_by: str = "--vision_tower_pretrained") -> dict[str, Any]:
    """Fields of the SigLIP vision encoder under a folder or hub name.

    Args:
        name_or_path: the folder or name.
        named_by: the argument or field that it comes from, for messages.

    Raises:
        ConfigError: none was given, or it is another kind of model.
        InputError: nothing can be read there.
    """
    if not name_or_path:
        raise ConfigError(
            "--vision_tower tam on a plain language model needs --vision_tower_pretrained: a folder or hub name of "
            "a SigLIP encoder, such as google/siglip-so400m-patch14-384"
        )
    try:
        if os.path.isdir(name_or_path):
            check_folder(name_or_path)
        values = read_config(name_or_path)
    except InputError as error:
        raise InputError(f"{named_by}: {error}") from error
    check_sizes(values, f"{name_or_path}/config.json")
    vision = siglip_vision_fields(values)
    if vision is None:
        raise ConfigError(
            f"{named_by} {name_or_path!r} has model_type {values.get('model_type')!r}: expected "
            "'siglip' or 'siglip_vision_model'"
        )
    return vision


def local_shapes(name_or_path: str) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a checkpoint folder; nothing for a hub name, whose weights may not be here yet."""
    return weight_shapes(name_or_path) if os.path.isdir(name_or_path) else {}
