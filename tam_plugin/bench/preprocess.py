"""``tam bench preprocess``: frames to the encoder's input, beside the host's way of one Pillow resize per frame."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.bench.timing import compare, rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE = 384
_HOST = "host: transformers' image transforms, frame by frame"
_OURS = "tam_plugin: preprocess_frames"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--frames", type=int, default=64, help="frames to preprocess (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1280, help="of the frames, in pixels (default: %(default)s)")
    parser.add_argument("--height", type=int, default=720, help="of the frames, in pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time both ways on the same frames, after checking that they agree.

    Returns:
        ``rows``, and what was measured: frames, sizes, the largest difference on the scale of [-1, 1].

    Raises:
        RuntimeError: the two ways differ by more than one grey level somewhere.
    """
    import torch

    from tam_plugin.video import preprocess_frames

    frames = moving_picture(args.frames, args.width, args.height)
    difference = float(np.abs(preprocess_frames(frames).numpy() - host_way(frames)).max())
    if difference > 1 / 127.5 + 1e-6:
        raise RuntimeError(f"largest difference {difference:.4f}: expected at most one grey level, {1 / 127.5:.4f}")
    medians = compare({_HOST: lambda: host_way(frames), _OURS: lambda: preprocess_frames(frames)}, args.rounds)
    return {
        "bench": "preprocess",
        "rows": rows(medians, _HOST),
        "num_frames": args.frames,
        "from": [args.width, args.height],
        "to": [_SIDE, _SIDE],
        "rounds": args.rounds,
        "torch_threads": torch.get_num_threads(),
        "largest_difference": difference,
    }


def host_way(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames ``[T, H, W, 3]`` to ``[T, 3, 384, 384]`` with transformers' transforms: a list of frames, step by step."""
    from transformers.image_transforms import normalize, rescale, resize, to_channel_dimension_format
    from transformers.image_utils import ChannelDimension, PILImageResampling

    first = ChannelDimension.FIRST
    steps: list[Callable[..., Any]] = [
        partial(resize, size=(_SIDE, _SIDE), resample=PILImageResampling.BICUBIC, data_format=first),
        partial(rescale, scale=1 / 255, data_format=first),
        partial(normalize, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), data_format=first),
        partial(to_channel_dimension_format, channel_dim=first, input_channel_dim=first),
    ]
    images: list[Any] = reduce(lambda done, step: [*map(step, done)], steps, list(frames))
    return np.stack(images)


def moving_picture(num_frames: int, width: int, height: int) -> NDArray[np.uint8]:
    """uint8 ``[T, H, W, 3]``: a gradient that drifts over noise, the same every time."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 12, (height, width)).astype(np.float32)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for number in range(num_frames):
        for channel, (period_x, period_y) in enumerate(((91, 57), (37, 120), (250, 33))):
            wave = np.sin((x + 9 * number) / period_x) + np.cos((y - 5 * number) / period_y)
            frames[number, :, :, channel] = (127 + 60 * wave + noise).clip(0, 255)
    return frames
