"""Checks before training loads any weight: what the arguments ask of the checkpoint that they start from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tam_plugin.bounds import check_sizes
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_json
from tam_plugin.model_folder import check_folder, weight_shapes
from tam_plugin.patches.checkpoint_checks import check_experts
from tam_plugin.patches.llava_next.arguments import VISION_TOWER, check_files, tam_config_from_args

_STILL_IMAGES_ONLY = ("mistral", "gemma", "mpt")


def check_training(model_args: Any) -> None:
    """Refuse what cannot work: bad values, missing files, a tower that cannot be upgraded.

    Args:
        model_args: the host's, with ``tam_args`` on it.

    Raises:
        ConfigError: with the argument or field, its value and what was expected.
        InputError: no model, or no SigLIP, can be read under the given name.
    """
    start = model_args.model_name_or_path
    values = read_config(start)
    check_sizes(values, f"{start}/config.json")
    check_language_model(values, start)
    tower = values.get("mm_vision_tower")
    base = values.get("tam") if tower == VISION_TOWER else None
    config = tam_config_from_args(model_args, base, folder=start)
    check_files(config)
    if base is not None:
        stored = TamConfig.from_dict(base)
        check_same_structure(stored, config)
        check_experts(local_shapes(start), stored.moe, start)
    elif tower is None:
        check_siglip_source(model_args.vision_tower_pretrained)
    elif not is_siglip_name(tower):
        raise ConfigError(not_siglip(tower))


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


def check_same_structure(stored: TamConfig, asked: TamConfig) -> None:
    """Refuse to continue a TAM checkpoint with other experts or projectors than it has.

    A dense tower may get experts, and a single projector may be copied to every stride (from stage 2 to stage 3).

    Raises:
        ConfigError: by field, with both values.
    """
    fields: list[tuple[str, Any, Any]] = []
    if stored.moe.enabled:
        fields += [(f"moe.{n}", getattr(stored.moe, n), getattr(asked.moe, n)) for n in ("enabled", "num_experts")]
    if projector_children(stored) != ["shared"]:
        fields.append(("projector", projector_children(stored), projector_children(asked)))
    for name, before, after in fields:
        if before != after:
            raise ConfigError(
                f"tam.{name} = {after!r} was asked for, but the checkpoint has {before!r}: leave it as it is, or start "
                "from the dense checkpoint"
            )


def projector_children(config: TamConfig) -> list[str]:
    """Names of the projectors that a configuration makes; with the number of experts of a soft one."""
    projector = config.projector
    if projector.gate == "soft":
        return [f"soft mixture of {projector.num_experts}"]
    return ["shared"] if projector.gate == "single" else [f"stride_{s}" for s in projector.strides]


def is_siglip_name(tower: str) -> bool:
    """Whether the host builds its SigLIP tower for this name (a path makes it build a CLIP tower)."""
    others = tower.startswith(("openai", "laion")) or "ShareGPT4V" in tower
    return "siglip" in tower and not others and not os.path.exists(tower)


def not_siglip(tower: str) -> str:
    """The message for a tower that cannot be upgraded."""
    return (
        f"--vision_tower tam: the checkpoint's vision tower is {tower!r}; expected a SigLIP tower (such as "
        "google/siglip-so400m-patch14-384), a TAM tower, or a plain language model with --vision_tower_pretrained"
    )


def check_siglip_source(name_or_path: str | None) -> dict[str, Any]:
    """Fields of the SigLIP vision encoder under a folder or hub name.

    Raises:
        ConfigError: none was given, or it is another kind of model.
        InputError: nothing can be read there.
    """
    if not name_or_path:
        raise ConfigError(
            "--vision_tower tam on a plain language model needs --vision_tower_pretrained: a folder or hub name of "
            "a SigLIP encoder, such as google/siglip-so400m-patch14-384"
        )
    if os.path.isdir(name_or_path):
        check_folder(name_or_path)
    values = read_config(name_or_path)
    check_sizes(values, f"{name_or_path}/config.json")
    if values.get("model_type") == "siglip" and isinstance(values.get("vision_config"), dict):
        values = {"model_type": "siglip_vision_model", **values["vision_config"]}
    if values.get("model_type") != "siglip_vision_model":
        raise ConfigError(
            f"--vision_tower_pretrained {name_or_path!r} has model_type {values.get('model_type')!r}: expected "
            "'siglip' or 'siglip_vision_model'"
        )
    return values


def read_config(name_or_path: str) -> dict[str, Any]:
    """config.json of a folder or hub name, as a mapping.

    Raises:
        InputError: there is none.
    """
    from transformers.utils import cached_file

    try:
        if os.path.isdir(name_or_path):
            return read_json(Path(name_or_path) / "config.json")
        return read_json(str(cached_file(name_or_path, "config.json")))
    except FileNotFoundError as error:
        raise InputError(f"{name_or_path!r} holds no config.json: expected a model checkpoint directory") from error
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"no model can be read from {name_or_path!r}: {reason}") from error


def local_shapes(name_or_path: str) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a checkpoint folder; nothing for a hub name, whose weights may not be here yet."""
    return weight_shapes(name_or_path) if os.path.isdir(name_or_path) else {}
