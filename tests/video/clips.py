"""Clips made with PyAV for the tests: tiny, deterministic, each frame telling its number in its pixels."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

WIDTH, HEIGHT = 160, 96


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 ``[H, W, 3]``: a moving gradient, a moving square and noise, another one for each ``number``."""
    y, x = np.mgrid[0:height, 0:width]
    red = 127 + 120 * np.sin((x + 5 * number) / 19)
    green = 127 + 120 * np.cos((y - 3 * number) / 13)
    blue = 40 + (x + y) * 150 / (width + height)
    image = np.stack([red, green, blue], -1)
    left, top = (7 * number) % max(1, width - 20), (5 * number) % max(1, height - 20)
    image[top : top + 20, left : left + 20] = (number * 37 % 256, number * 91 % 256, 255)
    return (image + np.random.default_rng(number).normal(0, 4, image.shape)).clip(0, 255).astype(np.uint8)


def make_clip(
    path: Path,
    num_frames: int = 60,
    *,
    codec: str = "libx264",
    fps: int = 25,
    gop: int = 12,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    with_sound: bool = False,
    draw: Callable[[int, int, int], np.ndarray] = picture,
) -> Path:
    """Encode ``num_frames`` pictures; ``times`` are their presentation times in ``time_base`` units."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    width, height = size
    with av.open(f"file:{path}", "w", format=container, options=container_options or {}) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.gop_size = gop
        stream.options = options or {}
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if with_sound:
            _add_tone(output)
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw(number, width, height), format="rgb24").reformat(format=pix_fmt)
            frame.pts = number if times is None else times[number]
            frame.time_base = time_base or Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def make_audio(path: Path) -> Path:
    """A second of tone, and no picture."""
    with av.open(f"file:{path}", "w") as output:
        _add_tone(output)
    return path


def _add_tone(output: av.container.OutputContainer) -> None:
    stream = output.add_stream("aac", rate=8000)
    samples = np.sin(np.arange(8000) / 9).astype(np.float32)[None]
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
    frame.sample_rate = 8000
    output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


MATRICES = {
    "turn 90": (0, 1, -1, 0),
    "turn 180": (-1, 0, 0, -1),
    "turn 270": (0, -1, 1, 0),
    "mirror": (-1, 0, 0, 1),
    "mirror and turn 90": (0, 1, 1, 0),
    "flip upside down": (1, 0, 0, -1),
}
"""Display matrices (a, b, c, d): a stored point (x, y) is shown at (a·x + c·y, b·x + d·y)."""


def with_matrix(source: Path, path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of the MP4 ``source`` whose track header holds another display matrix."""
    data = bytearray(source.read_bytes())
    box = data.index(b"tkhd")
    start = box + 8 + (32 if data[box + 4] else 20) + 16
    a, b, c, d = (value << 16 for value in matrix)
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def shown_frames(path: Path) -> tuple[np.ndarray, list[float]]:
    """Every frame by a plain sequential decode, uint8 ``[n, H, W, 3]`` as stored, and its time in seconds."""
    with av.open(f"file:{path}") as container:
        frames = list(container.decode(video=0))
        return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), [frame.time for frame in frames]


def with_first_frames_hidden(source: Path, path: Path, hidden: int, fps: int = 25) -> Path:
    """A copy of the MP4 ``source`` whose edit list starts ``hidden`` frames later."""
    data = bytearray(source.read_bytes())
    scale = data.index(b"mdhd") + 16
    ticks = struct.unpack(">I", data[scale : scale + 4])[0] // fps
    entry = data.index(b"elst") + 12
    duration_ms, start = struct.unpack(">Ii", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">Ii", duration_ms - hidden * 1000 // fps, start + hidden * ticks)
    path.write_bytes(data)
    return path
