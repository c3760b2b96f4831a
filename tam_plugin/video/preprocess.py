"""preprocess_frames: uint8 frames → the encoder's input, equal to the hosts' Pillow bicubic within one grey level.

Pillow resizes in two passes, and rounds and clips to uint8 after each. torch's uint8 resize does the same, several
times as fast, but with weights of 16 bits where Pillow has 22: at scales near 1 and above, where a single weight is
large, two such errors can add up to two grey levels. So frames that shrink clearly go through torch, the others through
Pillow.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.errors import InputError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_CHUNK = 4
"""Frames per step: few enough that a step's output is still in the cache when it is normalised."""

_LEAST_SHRINKING = 1.8
"""Sides that shrink by at least this factor go through torch: there no pixel of random noise was ever off by more than
one grey level."""


def preprocess_frames(
    frames: NDArray[np.uint8] | torch.Tensor,
    *,
    size: int = 384,
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5),
    std: tuple[float, float, float] = (0.5, 0.5, 0.5),
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Resize to ``size`` × ``size`` whatever the aspect ratio (antialiased bicubic), scale to [0, 1] and normalise.

    Steps of four frames are shared out among as many threads as torch has, since its uint8 resize runs on one thread.

    Args:
        frames: uint8 ``[T, H, W, 3]``, RGB.
        size: the encoder's side, in pixels.
        mean: of each channel, on the scale of [0, 1].
        std: of each channel, on the scale of [0, 1].
        dtype: of the result; None is float32. The arithmetic is float32.

    Returns:
        ``[T, 3, size, size]``, contiguous.

    Raises:
        InputError: ``frames`` are not uint8 of that shape, or ``size``, ``mean`` or ``std`` cannot be used.
    """
    import torch

    source = _as_tensor(frames)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise InputError(f"size = {size!r}: expected a whole number of pixels >= 1")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise InputError(f"mean = {mean!r}, std = {std!r}: expected three numbers each, those of std above 0")
    num_frames = source.shape[0]
    out = torch.empty((num_frames, 3, size, size), dtype=dtype or torch.float32)
    # (x / 255 - mean) / std as one multiplication and one subtraction, worked out in double precision
    scale = torch.tensor([1 / (255 * s) for s in std]).view(3, 1, 1)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)]).view(3, 1, 1)

    inference = torch.is_inference_mode_enabled()

    @torch.inference_mode(inference)  # a thread does not inherit the caller's mode, which `out` belongs to
    def step(start: int) -> None:
        chunk = _resized(source[start : start + _CHUNK], size)
        target = out[start : start + _CHUNK]
        if out.dtype == torch.float32:
            target.copy_(chunk).mul_(scale).sub_(shift)
        else:
            target.copy_(chunk.to(torch.float32).mul_(scale).sub_(shift))

    starts = range(0, num_frames, _CHUNK)
    workers = min(torch.get_num_threads(), len(starts))
    if workers == 1:
        for start in starts:
            step(start)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(step, starts))
    return out


def _resized(frames_THWC: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 ``[T, 3, size, size]``."""
    import torch

    _, height, width, _ = frames_THWC.shape
    if (height, width) == (size, size):
        return frames_THWC.permute(0, 3, 1, 2)
    if min(height, width) < _LEAST_SHRINKING * size:
        return _resized_by_pillow(frames_THWC, size)
    shrunk = frames_THWC.permute(0, 3, 1, 2)
    if _vertical_pass_first(height, width, size):
        shrunk = torch.nn.functional.interpolate(shrunk, (size, width), mode="bicubic", antialias=True)
    return torch.nn.functional.interpolate(shrunk, (size, size), mode="bicubic", antialias=True)


def _resized_by_pillow(frames_THWC: torch.Tensor, size: int) -> torch.Tensor:
    import torch
    from PIL import Image

    resized = np.empty((len(frames_THWC), size, size, 3), np.uint8)
    for row, frame in enumerate(frames_THWC.numpy()):
        resized[row] = np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(resized).permute(0, 3, 1, 2)


def _vertical_pass_first(height: int, width: int, size: int) -> bool:
    """Which pass Pillow starts with: it matters where the first one's overshoot is clipped.

    Pillow starts with the horizontal pass; from version 13 on with the vertical one where that takes away more than
    twice as many rows as the other takes away columns.
    """
    import PIL

    return int(PIL.__version__.split(".")[0]) >= 13 and height - size > max(0, 2 * (width - size))


def _as_tensor(frames: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
    import torch

    kind, shape = getattr(frames, "dtype", type(frames).__name__), tuple(getattr(frames, "shape", ()))
    if kind not in (np.uint8, torch.uint8) or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise InputError(f"frames of {kind} {list(shape)}: expected uint8 [T, H, W, 3] with at least one frame")
    if isinstance(frames, torch.Tensor):
        return frames.cpu().contiguous()
    # torch takes no negative strides, and warns of arrays that it could not write to
    return torch.from_numpy(np.require(frames, requirements=["C", "W"]))
