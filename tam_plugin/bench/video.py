"""``tam bench video``: uniform frames of a long video, beside the host's decord path."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.bench.timing import compare, rows
from tam_plugin.errors import InputError, require
from tam_plugin.storage import replace_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_HOST = "host: decord, one thread"
_WIDTH, _HEIGHT, _FPS, _GROUP = 640, 360, 25, 250


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--video", help="a video to read (default: one is generated: 640×360, H.264, a keyframe every 250 frames)"
    )
    parser.add_argument("--seconds", type=int, default=600, help="length of the generated video (default: %(default)s)")
    parser.add_argument("--workdir", help="where to keep it for the next run (default: a temporary folder)")
    parser.add_argument("--frames", type=int, default=64, help="frames to sample (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check that the exact frames are the host's, then time each way.

    Returns:
        ``rows``, and what was measured: the video, the frames, how many of them were snapped to a keyframe.

    Raises:
        RuntimeError: the exact frames are not the host's.
        MissingDependencyError: decord, which the host uses, is not installed.
    """
    require("decord", needed_for="tam bench video", extra="decord")
    for name in ("seconds", "frames", "rounds"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} = {getattr(args, name)}: expected a whole number >= 1")
    place = nullcontext(args.workdir) if args.workdir or args.video else tempfile.TemporaryDirectory()
    with place as folder:
        path = args.video or long_video(Path(folder), args.seconds)
        return _measure(str(path), args.frames, args.rounds)


def _measure(path: str, num_frames: int, rounds: int) -> dict[str, Any]:
    from tam_plugin.video import available_backends, sample_frames

    exact = sample_frames(path, num_frames)
    if not np.array_equal(exact.frames, host_way(path, num_frames)):
        raise RuntimeError(f"{path}: the exact frames are not those that decord gives")
    snapped = sample_frames(path, num_frames, snap_to_keyframes=True)
    ways: dict[str, Callable[[], object]] = {
        _HOST: lambda: host_way(path, num_frames),
        "tam_plugin: exact": lambda: sample_frames(path, num_frames),
        "tam_plugin: exact, size 384": lambda: sample_frames(path, num_frames, size=384),
        "tam_plugin: snapped to keyframes": lambda: sample_frames(path, num_frames, snap_to_keyframes=True),
    }
    if "torchcodec" in available_backends():
        ways["torchcodec: exact"] = lambda: sample_frames(path, num_frames, backend="torchcodec")
    info = exact.info
    return {
        "bench": "video",
        "rows": rows(compare(ways, rounds), _HOST),
        "video": path,
        "codec": info.codec,
        "size": [info.width, info.height],
        "duration_s": info.duration_s,
        "num_frames": len(exact),
        "snapped": snapped.snapped,
        "exact_equals_host": True,
        "rounds": rounds,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def host_way(path: str, num_frames: int) -> NDArray[np.uint8]:
    """The host's frames: decord with one thread, uniform indices, one batch."""
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0), num_threads=1)
    frames: NDArray[np.uint8] = reader.get_batch(np.linspace(0, len(reader) - 1, num_frames, dtype=int)).asnumpy()
    return frames


def long_video(folder: Path, seconds: int) -> Path:
    """A video of this length, kept in ``folder`` for the next run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bench_{_WIDTH}x{_HEIGHT}_{seconds}s.mp4"
    if not path.exists():
        with replace_path(path) as part:
            make_video(part, seconds)
    return path


def make_video(path: Path, seconds: int) -> None:
    """Encode a drifting, grainy landscape of waves: motion enough that x264 makes use of B-frames.

    The pictures are windows onto one large picture, so that making them costs next to nothing beside encoding.
    """
    import av

    y, x = np.mgrid[0 : 2 * _HEIGHT, 0 : 2 * _WIDTH]
    grain = np.random.default_rng(0).normal(0, 3, x.shape)
    luma = (110 + 48 * np.sin(x / 37) + 40 * np.cos(y / 23) + grain).clip(16, 235).astype(np.uint8)
    blue = (128 + 60 * np.sin(x / 91 + y / 57))[:_HEIGHT, :_WIDTH].astype(np.uint8)
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = _WIDTH, _HEIGHT, "yuv420p", _GROUP
        stream.options = {"preset": "veryfast", "crf": "23"}
        for number in range(seconds * _FPS):
            left = round(_WIDTH / 4 * (1 + np.sin(number / 90))) * 2
            top = round(_HEIGHT / 4 * (1 + np.cos(number / 70))) * 2
            chroma = blue[top // 2 : (top + _HEIGHT) // 2, left // 2 : (left + _WIDTH) // 2]
            frame = av.VideoFrame(_WIDTH, _HEIGHT, "yuv420p")
            windows = (luma[top : top + _HEIGHT, left : left + _WIDTH], chroma, 255 - chroma)
            for plane, window in zip(frame.planes, windows, strict=True):
                lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
                lines[:, : plane.width] = window
            frame.pts = number
            output.mux(stream.encode(frame))
            if number % (_FPS * 60) == 0:
                print(f"making a video: {number // _FPS} of {seconds} s", file=sys.stderr, flush=True)
        output.mux(stream.encode(None))
