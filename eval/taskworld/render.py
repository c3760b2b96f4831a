"""From a clip to pixels: the frames that an encoder sees, or an H.264 file for the whole way."""

from __future__ import annotations

import functools
import os
from fractions import Fraction

import numpy as np
import torch

from tam_plugin.eval.taskworld.sprites import ATLAS, SCENES, TILE
from tam_plugin.eval.taskworld.world import GRID, SKY_ROWS, Clip
from tam_plugin.video.indices import uniform_indices

SIZE = GRID * TILE
"""Pixels per side that the encoder reads."""
FILE_SCALE = 4
"""Pixels per side of a file for each pixel of the encoder's."""
LEAST_FPS = 4
NOISE = 4.0
"""Standard deviation of the noise in files and in training, in steps of 255."""


def ticks_at(clip: Clip, num_frames: int) -> np.ndarray:
    """Ticks of the frames that ``sample_frames`` takes of the clip's file, ``[T]``."""
    per_tick = frames_per_tick(clip)
    return uniform_indices(clip.num_ticks * per_tick, num_frames) // per_tick


def frames_per_tick(clip: Clip) -> int:
    """Frames that a file shows of every tick."""
    return max(4, int(np.ceil(LEAST_FPS * clip.duration_s / clip.num_ticks)))


def tiles_of(clip: Clip, ticks: np.ndarray) -> np.ndarray:
    """Tile ids at some ticks, ``[T, 12, 12]``."""
    tiles = np.broadcast_to(clip.still, (len(ticks), GRID, GRID)).copy()
    for (row, column), track in clip.tracks.items():
        tiles[:, row, column] = track[ticks]
    for row in SKY_ROWS:
        tiles[:, row, row % 2 :: 2] = clip.weathers[ticks, None]
    return tiles


def draw(clip: Clip, ticks: np.ndarray) -> np.ndarray:
    """Frames without noise, uint8 ``[T, 72, 72, 3]``."""
    tiles = tiles_of(clip, ticks)
    picture = _ATLAS_RGB[tiles]  # [T, 12, 12, 6, 6, 3]
    background = _BACKGROUNDS[clip.scenes[ticks]]
    out = np.where(_ATLAS_OPAQUE[tiles], picture, background)
    return out.transpose(0, 1, 3, 2, 4, 5).reshape(len(ticks), SIZE, SIZE, 3)


def encoder_input(frames: np.ndarray, rng: np.random.Generator | None = None) -> torch.Tensor:
    """What the encoder reads of drawn frames, ``[T, 3, 72, 72]`` in [-1, 1].

    As though they had been written at four times the size and scaled down again by ``preprocess_frames`` (bicubic);
    with ``rng`` noise stands in for the codec.
    """
    scale = _file_and_back()
    x = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    x = scale @ x @ scale.T
    if rng is not None:
        x = x + NOISE * torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
    return x.clamp(0, 255) / 127.5 - 1


def write_file(clip: Clip, path: str | os.PathLike[str]) -> None:
    """Write the clip as H.264 in MP4, 288 × 288 pixels; by one thread, so that no machine writes other bytes."""
    import av

    per_tick = frames_per_tick(clip)
    rate = Fraction(clip.num_ticks * per_tick / clip.duration_s).limit_denominator(1000)
    side = SIZE * FILE_SCALE
    with av.open(os.fspath(path), "w", options={"movflags": "faststart", "fflags": "bitexact"}) as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = side, side, "yuv420p", 48
        stream.codec_context.thread_count = 1
        stream.options = {"crf": "20", "preset": "veryfast", "flags": "+bitexact"}
        for tick in range(clip.num_ticks):
            large = draw(clip, np.array([tick]))[0].repeat(FILE_SCALE, 0).repeat(FILE_SCALE, 1)
            for _ in range(per_tick):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        output.mux(stream.encode())


@functools.cache
def _file_and_back() -> torch.Tensor:
    """``[72, 72]``: one axis of writing at four times the size and of Pillow's bicubic reduction."""
    from PIL import Image

    large = np.eye(SIZE, dtype=np.float32).repeat(FILE_SCALE, 0)  # [288, 72]: one column, one bright pixel
    image = Image.fromarray(large, mode="F").resize((SIZE, SIZE), Image.Resampling.BICUBIC, (0, 0, SIZE, len(large)))
    return torch.from_numpy(np.asarray(image).copy())


def backgrounds() -> np.ndarray:
    """``[scenes, 12, 12, 6, 6, 3]``: a chequer of two near colours."""
    out = np.zeros((len(SCENES), GRID, GRID, TILE, TILE, 3), np.uint8)
    y, x = np.mgrid[0:TILE, 0:TILE]
    mask = ((x // 2 + y // 2) % 2 == 0)[..., None]
    for i, (first, second) in enumerate(SCENES.values()):
        out[i] = np.where(mask, np.array(first, np.uint8), np.array(second, np.uint8))
    return out


_BACKGROUNDS = backgrounds()
_ATLAS_RGB, _ATLAS_OPAQUE = ATLAS[..., :3], ATLAS[..., 3:] > 0
