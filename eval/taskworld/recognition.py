"""Whether a video is one of TaskWorld's: a model trained there knows no other."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from tam_plugin.eval.taskworld.render import SIZE, backgrounds
from tam_plugin.eval.taskworld.sprites import ATLAS, TILE
from tam_plugin.eval.taskworld.world import GRID

FAR = 16.0
"""Mean difference, in steps of 255, beyond which a patch is none of the world's tiles."""
LEAST_SHARE = 0.95
"""Share of a frame's patches that must be tiles."""


def is_taskworld(frames: np.ndarray) -> bool:
    """Whether the first, the middle and the last frame are made of TaskWorld's tiles.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
    """
    height, width = frames.shape[1:3]
    if height != width or height < SIZE:
        return False
    return all(_is_tiled(frames[i]) for i in sorted({0, len(frames) // 2, len(frames) - 1}))


def _is_tiled(frame: np.ndarray) -> bool:
    small = np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BOX), np.float32)
    patches = small.reshape(GRID, TILE, GRID, TILE, 3).swapaxes(1, 2).reshape(GRID * GRID, -1)
    differences = np.stack([np.abs(patches - tile).mean(1) for tile in _tiles()])
    return bool((differences.min(0) < FAR).mean() >= LEAST_SHARE)


@functools.cache
def _tiles() -> np.ndarray:
    """Every tile over every scene, ``[N, 108]``."""
    ground = backgrounds()[:, 0, 0]  # [scenes, 6, 6, 3]
    over = np.where(ATLAS[:, None, ..., 3:] > 0, ATLAS[:, None, ..., :3], ground[None])
    return over.reshape(-1, TILE * TILE * 3).astype(np.float32)
