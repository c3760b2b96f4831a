"""LLaVA-NeXT's own loader, led to the asked device and type, and the arguments that say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tam_plugin.errors import ConfigError
from tam_plugin.eval.lmms.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TallvaSettings(Settings):
    """The arguments of ``tallva``.

    Attributes:
        conv_template: the host's conversation template; LLaVA-Video's is ``qwen_1_5``.
        model_base: the model that a LoRA or projector checkpoint was trained from.
        model_name: what the host tells a checkpoint's architecture by; None takes the last part of its path.
        device_map: ``auto`` spreads the model over every GPU; None keeps it on one device.
    """

    conv_template: str = "qwen_1_5"
    model_base: str | None = None
    model_name: str | None = None
    device_map: str | None = None


def import_host() -> None:
    """Import LLaVA-NeXT with the plugin's patches.

    Raises:
        MissingDependencyError: it is not there, or something that it needs.
    """
    from tam_plugin.patches import activation
    from tam_plugin.patches.hosts.llava_next import import_llava

    activation.start()
    import_llava("llava.model.builder")


def load_checkpoint(settings: TallvaSettings, device: torch.device) -> tuple[Any, Any, Any, int]:
    """Tokenizer, model in evaluation mode, image processor, context length.

    The host loads float16 and bfloat16 alone; what is asked for in float32 is loaded in the checkpoint's own type of
    these two and widened.

    Raises:
        ConfigError: ``device_map`` is neither ``auto`` nor left out.
    """
    from llava.mm_utils import get_model_name_from_path
    from llava.model.builder import load_pretrained_model

    dtype = settings.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.type == "cuda" else "float32"
    spread = settings.device_map == "auto"
    if settings.device_map not in (None, "auto"):
        raise ConfigError(f"model_args: device_map = {settings.device_map!r}: expected auto, or leave it out")
    # "auto" on a machine without GPUs is the CPU; anything else makes the host move the tower to a GPU.
    device_map = "auto" if spread or not torch.cuda.is_available() else str(device)
    tokenizer, model, image_processor, context = load_pretrained_model(
        settings.pretrained,
        settings.model_base,
        settings.model_name or get_model_name_from_path(settings.pretrained),
        device_map=device_map,
        torch_dtype=_loadable(settings.pretrained) if dtype == "float32" else dtype,
        attn_implementation=settings.attn_implementation,
    )
    if not spread:
        model.to(device)
    if dtype == "float32":
        model.float()
    else:  # the host casts the tower to float16; the rest is as asked, and its float32 buffers (rotary) must stay so
        model.get_vision_tower().to(dtype=getattr(torch, dtype))
    return tokenizer, model.eval(), image_processor, context


def _loadable(pretrained: str) -> str:
    from loguru import logger

    from tam_plugin.patches.sources import read_config

    values = read_config(pretrained)
    stored = str(values.get("torch_dtype") or values.get("dtype") or "bfloat16").removeprefix("torch.")
    if stored not in ("float16", "bfloat16"):
        logger.warning(f"{pretrained} is stored in {stored}: the host can load it in bfloat16 only")
    return "float16" if stored == "float16" else "bfloat16"
