"""The host's own settings that make it fail after the weights are loaded, or that a TAM model does not use."""

from __future__ import annotations

import ast
import importlib.util
from typing import Any

from tam_plugin.errors import ConfigError

FLASH = "flash_attention_2"


def check_host_settings(flags: Any) -> None:
    """Refuse the host's own settings that make it fail later, or that a TAM model does not use.

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
