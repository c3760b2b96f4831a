"""probe_video: duration, frame rate, frame count and displayed size of a video, without decoding it."""

from __future__ import annotations

import os
from array import array
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import checked_path, libav_errors, one_line, open_video, packets_of
from tam_plugin.video.index import FrameIndex, scan_frames, scan_packets
from tam_plugin.video.info import VideoInfo
from tam_plugin.video.integrity import header_entries, require_whole
from tam_plugin.video.orientation import Orientation, orientation_of

if TYPE_CHECKING:
    from fractions import Fraction

_FIRST_FRAME_PACKETS = 512
"""Packets to try for a first frame before a video is taken as one that cannot be decoded."""


def probe_video(path: str | os.PathLike[str], *, image_fps: float = 1.0) -> VideoInfo:
    """What there is to know of a video before its frames are taken.

    Where the header lists every frame (MP4, MOV), one frame is decoded, for the size and the turn it is displayed with,
    and nothing else is read. Elsewhere the packets are counted, without decoding them.

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
    stored = read_header(name)
    return video_info(stored, None if stored.listed else scan_packets(name) or scan_frames(name))


class StoredVideo:
    """What the header and the first frame of a file tell.

    Attributes:
        path: the file.
        codec: libav's name of the codec.
        size: (width, height) of the pictures as stored.
        orientation: the turn that makes them upright.
        fps: the container's average frame rate; None where it tells none.
        listed: (frames, seconds) where the header tells them for sure, see :func:`_listed`; else None.
    """

    def __init__(self, path: str, stream: Any, first: Any) -> None:
        self.path = path
        self.codec: str = stream.codec_context.name
        self.size: tuple[int, int] = (first.width, first.height)
        self.orientation: Orientation = orientation_of(first)
        self.fps = _rate(stream.average_rate) or _rate(stream.guessed_rate)
        self.listed = _listed(stream)


def _listed(stream: Any) -> tuple[int, float] | None:
    """(frames, seconds) from the header, where it lists all frames, hides none, and spaces them evenly.

    At a variable rate a header's duration may end before the last frames are shown, so there packets are counted.
    """
    entries = header_entries(stream)
    if entries is None or not stream.duration:
        return None
    ticks = array("q")
    for entry in entries:
        if entry.is_discard:
            return None
        ticks.append(entry.timestamp)
    steps = np.diff(np.frombuffer(ticks, np.int64))
    if len(steps) and steps.max() - steps.min() > max(2, 0.01 * steps.mean()):
        return None
    return stream.frames, float(stream.duration * stream.time_base)


def read_header(path: str) -> StoredVideo:
    """Open ``path`` and decode its first frame.

    Raises:
        InputError: it cannot be opened, is cut short, has no video, or no frame of it can be decoded.
    """
    with open_video(path) as (container, stream):
        require_whole(path, stream)
        with libav_errors(path, "cannot be decoded"):
            first = _first_frame(container, stream)
        if first is None:
            raise InputError(f"video {one_line(path)}: none of its frames can be decoded; expected a playable video")
        return StoredVideo(path, stream, first)


def video_info(stored: StoredVideo, index: FrameIndex | None) -> VideoInfo:
    """Put together what the header tells and, where it does not list the frames, what was counted."""
    if index is None or (stored.listed and stored.listed[0] == index.num_frames):
        assert stored.listed is not None
        num_frames, duration_s = stored.listed
        fps = stored.fps or num_frames / duration_s
    else:
        num_frames = index.num_frames
        span_s = float(index.timestamps_s[-1])
        fps = _mean_rate(stored.fps, (num_frames - 1) / span_s if span_s > 0 else None)
        # the last frame is shown as long as a mean one
        duration_s = span_s * num_frames / (num_frames - 1) if num_frames > 1 else 1 / fps
    width, height = stored.size[::-1] if stored.orientation.swaps_sides else stored.size
    return VideoInfo(
        path=stored.path,
        duration_s=duration_s,
        fps=fps,
        num_frames=num_frames,
        width=width,
        height=height,
        codec=stored.codec,
        rotation=stored.orientation.rotation,
        mirrored=stored.orientation.mirrored,
        counted=stored.listed is None,
    )


def _first_frame(container: Any, stream: Any) -> Any | None:
    import av

    for packet in chain(islice(packets_of(container, stream), _FIRST_FRAME_PACKETS), [None]):
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.InvalidDataError:
            continue
        if frames:
            return frames[0]
    return None


def _mean_rate(told: float | None, measured: float | None) -> float:
    """The rate that the container tells, unless the timestamps belie it (a nominal rate of a variable-rate file)."""
    if told is not None and (measured is None or abs(told - measured) <= 0.01 * measured):
        return told
    return measured or 25.0


def _rate(rate: Fraction | None) -> float | None:
    return float(rate) if rate else None
