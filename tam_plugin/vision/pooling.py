"""Pooling of a frame's patch grid by the budget's stride (Sec. 3.2)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from tam_plugin.errors import InputError


def pool_tokens(features: torch.Tensor, stride: int, mode: str = "bilinear") -> torch.Tensor:
    """Pool the square patch grid of each frame.

    Args:
        features: ``[T, G*G, D]``.
        stride: 1 returns ``features`` itself.
        mode: ``bilinear`` keeps ceil(G / stride) tokens per side, as the hosts do by default; ``average`` and
            ``max`` keep floor(G / stride) and drop the last rows and columns.

    Returns:
        ``[T, h*h, D]``.

    Raises:
        InputError: patches that form no square, a stride below 1 or above the grid, or an unknown mode.
    """
    if features.dim() != 3:
        raise InputError(f"features of shape {tuple(features.shape)}: expected [frames, patches, width]")
    num_frames, num_patches, width = features.shape
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        raise InputError(
            f"{num_patches} patches per frame do not form a square grid: expected G*G, such as 729 for 27x27"
        )
    if isinstance(stride, bool) or not isinstance(stride, int) or not 1 <= stride <= max(side, 1):
        raise InputError(f"pool stride {stride!r}: expected a whole number from 1 to the grid's side {side}")
    if stride == 1:
        return features
    # Channels last as they lie in memory: torch pools that layout without the copy that permuting would cost.
    grid = features.view(num_frames, side, side, width).permute(0, 3, 1, 2)
    if mode == "bilinear":
        size = math.ceil(side / stride)
        grid = F.interpolate(grid, size=(size, size), mode="bilinear")
    elif mode == "average":
        grid = F.avg_pool2d(grid, stride)
    elif mode == "max":
        grid = F.max_pool2d(grid, stride)
    else:
        raise InputError(f"pool mode {mode!r}: expected bilinear, average or max")
    return grid.permute(0, 2, 3, 1).flatten(1, 2)
