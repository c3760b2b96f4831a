"""What the configuration of the host's model says of TAM and of the layout of visual tokens."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from tam_plugin.budget import TokenLayout
from tam_plugin.config import TamConfig, short
from tam_plugin.errors import ConfigError


def is_tam(model: Any) -> bool:
    """Whether ``model`` (or what holds its ``config``) is a TAM model; anything else stays the host's."""
    return isinstance(getattr(getattr(model, "config", None), "tam", None), dict)


def tam_config_of(model: Any) -> TamConfig:
    """The configuration that the model carries."""
    return TamConfig.from_dict(model.config.tam)


def token_layout_of(model: Any, *, context_tokens: int | None) -> TokenLayout:
    """How the host's model lays out a video's tokens.

    Args:
        model: the host's causal language model, dense or TAM, with its vision tower.
        context_tokens: what the host keeps of a sequence.
    """
    grid, newline = model.get_vision_tower().num_patches_per_side, newline_position(model.config)
    if is_tam(model):
        projector = tam_config_of(model).projector
        return TokenLayout.of_projector(projector, grid=grid, newline_position=newline, context_tokens=context_tokens)
    return TokenLayout(
        grid=grid,
        pool_mode=getattr(model.config, "mm_spatial_pool_mode", None) or "bilinear",
        newline_position=newline,
        strides=tuple(range(1, grid + 1)),  # one projector serves every stride
        context_tokens=context_tokens,
    )


def newline_of(values: Mapping[str, Any], where: str) -> str:
    """:func:`newline_position` of a ``config.json``.

    Raises:
        ConfigError: a field that it depends on is no text.
    """
    for name in ("mm_patch_merge_type", "mm_newline_position"):
        if not isinstance(values.get(name), (str, type(None))):
            raise ConfigError(f"{where}: {name} = {short(values[name])}: expected a text")
    return newline_position(SimpleNamespace(**values))


def newline_position(config: Any) -> str:
    """Where the host really puts newline tokens into a video's, in the words of :class:`VisualBudget`.

    With ``mm_patch_merge_type`` "flat" it puts none, and the one at the end of a video only if that type says "unpad".
    """
    merge_type = getattr(config, "mm_patch_merge_type", None) or "flat"
    position = getattr(config, "mm_newline_position", None) or "one_token"
    if not merge_type.startswith("spatial"):
        return "no_token"
    return "no_token" if position == "one_token" and "unpad" not in merge_type else position
