"""Checks before training loads any weight: what the arguments ask of the checkpoint that they start from."""

from __future__ import annotations

import ast
import importlib.util
import os
from typing import Any

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.model_names import missing_folder
from tam_plugin.patches.checkpoint_checks import check_experts, tensor_shapes
from tam_plugin.patches.llava_next.arguments import VISION_TOWER, check_files, tam_config_from_args
from tam_plugin.patches.llava_next.tower import siglip_config
from tam_plugin.patches.sources import is_siglip, read_config, siglip_vision_fields
from tam_plugin.training.zero3 import ZERO_3, zero_stage

FLASH = "flash_attention_2"
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
    check_language_model(values, start)
    check_host_settings(flags)
    tower = values.get("mm_vision_tower")
    stored = stored_in(values, start) if tower == VISION_TOWER else None
    config = tam_config_from_args(flags, stored)
    check_files(config)
    side = (config.vision_encoder or {}).get("image_size", SIDE)
    if stored is not None:
        check_same_structure(stored, config)
        check_experts(local_shapes(start), stored.moe, start)
    elif tower is None:
        side = siglip_config(check_siglip_source(flags.vision_tower_pretrained)).image_size
    else:
        check_dense_tower(tower, start)
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


def check_host_settings(flags: Any) -> None:
    """Refuse settings of the host's own that it stumbles over later, or that a TAM model has no use for.

    Raises:
        ConfigError: preference training, how the host merges patches, a resampler, an attention that is not installed.
    """
    if hasattr(flags, "dpo_alpha"):
        raise ConfigError(
            "--vision_tower tam: train_dpo.py takes 10 fixed frames of each video whatever is asked about it, so "
            "preference training of a TAM model is not supported; train it with llava/train/train_mem.py"
        )
    merge_type = getattr(flags, "mm_patch_merge_type", None) or "flat"
    if merge_type != "flat" and not merge_type.startswith("spatial"):
        raise ConfigError(
            f"--mm_patch_merge_type {merge_type}: the host stops at it in the first step; expected flat or "
            "spatial_unpad (or another that begins with spatial)"
        )
    resampler = getattr(flags, "mm_resampler_type", None)
    if resampler is not None:
        raise ConfigError(
            f"--mm_resampler_type {resampler}: a TAM model pools each video by its budget's stride and applies no "
            "resampler; leave the argument out (and --mm_spatial_pool_out_channels with it)"
        )
    if getattr(flags, "attn_implementation", None) == FLASH and not _has_flash():
        raise ConfigError(
            f"--attn_implementation {FLASH} (the host's default): the package flash_attn is not there, or this machine "
            "has no GPU for it; pip install flash-attn, or pass --attn_implementation sdpa"
        )


def _has_flash() -> bool:
    from transformers.utils import is_flash_attn_2_available

    # Newer versions of transformers fetch the kernels themselves if that package is there.
    return bool(is_flash_attn_2_available()) or importlib.util.find_spec("kernels") is not None


def check_pinpoints(flags: Any, side: int) -> None:
    """Refuse resolutions of images that the vision tower's squares do not tile, as scripts for a CLIP have them.

    Args:
        flags: as for :func:`check_training`.
        side: pixels per side of the tower's input.

    Raises:
        ConfigError: with a resolution that does not fit, and what would.
    """
    text = getattr(flags, "image_grid_pinpoints", None)
    if "anyres" not in (getattr(flags, "image_aspect_ratio", None) or "") or not isinstance(text, str) or "x" in text:
        return  # "(1x1),...,(6x6)" counts squares
    try:
        resolutions = [(int(width), int(height)) for width, height in ast.literal_eval(text)]
    except (ValueError, TypeError, SyntaxError) as error:
        raise ConfigError(
            f"--image_grid_pinpoints {text!r}: expected '(1x1),...,(6x6)', or a list of (width, height) in pixels"
        ) from error
    if bad := [pair for pair in resolutions if pair[0] % side or pair[1] % side]:
        raise ConfigError(
            f"--image_grid_pinpoints: {bad[0]} pixels are no multiples of the vision tower's {side}; pass "
            "'(1x1),...,(6x6)', which counts squares of the tower's size, or multiples of it"
        )


def stage_of(deepspeed: Any) -> int | None:
    """The ZeRO stage of ``--deepspeed``; None without it.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return zero_stage(deepspeed)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--deepspeed {deepspeed!r} cannot be read: {error}") from error


def check_zero3(stored: TamConfig | None, asked: TamConfig, flags: Any) -> None:
    """Refuse what would copy weights that ZeRO-3 holds in parts.

    Args:
        stored: configuration of the checkpoint; None for a dense one.
        asked: the one that training is to have.
        flags: as for :func:`check_training`.

    Raises:
        ConfigError: with the way out.
    """
    start = flags.model_name_or_path
    if not same_modules(stored, asked):
        raise ConfigError(in_parts(start, "dense" if stored is None else "of another structure"))
    if getattr(flags, "pretrain_mm_mlp_adapter", None) is not None:
        raise ConfigError(
            f"--pretrain_mm_mlp_adapter: ZeRO-3 holds the projectors of {start!r} in parts, so none can be loaded into "
            "them; leave the argument out, or train under ZeRO-2"
        )


def in_parts(start: str, kind: str) -> str:
    """The message for a checkpoint that ZeRO-3 keeps from being upgraded."""
    return (
        f"--deepspeed: under ZeRO-3 the weights of {start!r} are split up as they are loaded, and the checkpoint is "
        f"{kind}: nothing can be copied into experts and projectors then. Convert it on disk first (tam upcycle "
        f"{start} DIR) and start from DIR, or train under ZeRO-2"
    )


def same_modules(stored: TamConfig | None, asked: TamConfig) -> bool:
    """Whether a checkpoint's tower and projectors are the modules that are asked for."""
    if stored is None:
        return False
    same_experts = (stored.moe.enabled, stored.moe.num_experts) == (asked.moe.enabled, asked.moe.num_experts)
    return same_experts and projector_children(stored) == projector_children(asked)


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
        fields += [
            ("--tam_moe", stored.moe.enabled, asked.moe.enabled),
            ("--tam_num_experts", stored.moe.num_experts, asked.moe.num_experts),
        ]
    if projector_children(stored) != ["shared"]:
        fields.append(("--tam_strides, --tam_projector_gate", projector_children(stored), projector_children(asked)))
    for name, before, after in fields:
        if before != after:
            raise ConfigError(
                f"{name}: {after!r} was asked for, but the checkpoint has {before!r}: leave it as it is, or start "
                "from the dense checkpoint"
            )


def projector_children(config: TamConfig) -> list[str]:
    """Names of the projectors that a configuration makes; with the number of experts of a soft one."""
    projector = config.projector
    if projector.gate == "soft":
        return [f"soft mixture of {projector.num_experts}"]
    return ["shared"] if projector.gate == "single" else [f"stride_{s}" for s in projector.strides]


def check_dense_tower(tower: Any, start: str) -> None:
    """Refuse a checkpoint whose tower cannot be upgraded.

    Raises:
        ConfigError: it is no SigLIP.
        InputError: it is named by a folder that is not on this machine.
    """
    if isinstance(tower, str) and (problem := missing_folder(tower)):
        raise InputError(
            f"{start!r}: config.json names its vision tower (mm_vision_tower) by a path, and {problem}. Correct the "
            "entry: a SigLIP encoder's folder on this machine, or google/siglip-so400m-patch14-384"
        )
    if not isinstance(tower, str) or not is_siglip(tower):
        raise ConfigError(not_siglip(str(tower)))


def not_siglip(tower: str) -> str:
    """The message for a tower that cannot be upgraded."""
    return (
        f"--vision_tower tam: the checkpoint's vision tower is {tower!r}; expected a SigLIP tower (such as "
        "google/siglip-so400m-patch14-384, or a SigLIP encoder's folder), a TAM tower, or a plain language model with "
        "--vision_tower_pretrained"
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
    try:
        values = read_config(name_or_path)
    except InputError as error:
        raise InputError(f"--vision_tower_pretrained: {error}") from error
    vision = siglip_vision_fields(values)
    if vision is None:
        raise ConfigError(
            f"--vision_tower_pretrained {name_or_path!r} has model_type {values.get('model_type')!r}: expected "
            "'siglip' or 'siglip_vision_model'"
        )
    return vision


def local_shapes(name_or_path: str) -> dict[str, tuple[int, ...]]:
    """Tensor shapes of a checkpoint folder; nothing for a hub name, whose weights may not be here yet."""
    return tensor_shapes(name_or_path) if os.path.isdir(name_or_path) else {}
