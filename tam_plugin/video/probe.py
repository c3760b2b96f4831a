"""probe_video: duration, frame rate, frame count and displayed size of a video, without decoding it."""

from __future__ import annotations

import os

from tam_plugin.video.container import checked_path
from tam_plugin.video.header import Header, read_header
from tam_plugin.video.in_order import scan_frames
from tam_plugin.video.index import FrameIndex
from tam_plugin.video.info import VideoInfo
from tam_plugin.video.packets import scan_packets


def probe_video(path: str | os.PathLike[str], *, image_fps: float = 1.0) -> VideoInfo:
    """What there is to know of a video before its frames are taken.

    One frame is decoded, for the size and the turn it is displayed with. Where the header lists every frame (MP4, MOV),
    nothing else is read; elsewhere the packets are counted, without decoding them. Only a file whose packets do not
    tell when their frames are shown is decoded as a whole.

    Args:
        path: a video file, or a directory of images, which are taken in natural order: ``frame_2`` before ``frame_10``.
        image_fps: frames per second of a directory of images.

    Raises:
        InputError: there is no such file, or it is no video that can be decoded; one line says why.
    """
    name = checked_path(path)
    if os.path.isdir(name):
        from tam_plugin.video.images import probe_images

        return probe_images(name, image_fps)
    header = read_header(name)
    index = header.index or scan_packets(name)
    return video_info(header, index if index.timed else scan_frames(name, by_packets=index))


def video_info(header: Header, index: FrameIndex) -> VideoInfo:
    """Put together what the header tells and what the index counts."""
    fps = _frame_rate(header.fps, index.num_frames, float(index.timestamps_s[-1]))
    width, height = header.size[::-1] if header.orientation.swaps_sides else header.size
    return VideoInfo(
        path=header.path,
        duration_s=index.duration_s(header.fps),
        fps=fps,
        num_frames=index.num_frames,
        width=width,
        height=height,
        codec=header.codec,
        rotation=header.orientation.rotation,
        mirrored=header.orientation.mirrored,
        counted=header.index is None or header.index.num_frames != index.num_frames,
    )


def _frame_rate(told: float | None, num_frames: int, span_s: float) -> float:
    """The rate that the container tells, unless the times belie it (a nominal rate of a variable-rate file, say).

    Args:
        told: the container's average rate.
        num_frames: frames that are shown.
        span_s: seconds from the first to the last.
    """
    told_span_s = (num_frames - 1) / told if told else None
    if told and told_span_s is not None and abs(told_span_s - span_s) <= max(1e-3 * span_s, 2e-3):
        return told
    return (num_frames - 1) / span_s if span_s > 0 else told or 25.0
