"""What the header and the first frame of a video file tell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError
from tam_plugin.video.container import check_picture_size, libav_errors, one_line, open_video, packets_of
from tam_plugin.video.integrity import require_whole
from tam_plugin.video.mp4 import header_index
from tam_plugin.video.orientation import Orientation, orientation_of

if TYPE_CHECKING:
    from fractions import Fraction

    from tam_plugin.video.index import PacketIndex

_FIRST_FRAME_PACKETS = 512
"""Packets to try for a first frame before a video is taken as one that cannot be decoded."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the header and the first frame of a file tell.

    Attributes:
        path: the file.
        codec: libav's name of the codec.
        size: (width, height) of the pictures as stored.
        orientation: the turn that makes them upright.
        fps: the container's average frame rate; None where it tells none.
        index: the frame index, where the header lists all frames (MP4, MOV); else None.
        stream: the number of the video stream that is read.
    """

    path: str
    codec: str
    size: tuple[int, int]
    orientation: Orientation
    fps: float | None
    index: PacketIndex | None
    stream: int


def read_header(path: str) -> Header:
    """Open ``path`` and decode its first frame, which alone tells the turn that it is displayed with.

    Raises:
        InputError: it cannot be opened, is cut short, has no video, or no frame of it can be decoded.
    """
    with open_video(path) as (container, stream):
        with libav_errors(path, "cannot be decoded"):
            require_whole(path, container, stream)
            first, packets = _first_frame(container, stream)
        if first is None:
            expected = (
                "an MP4 or a GIF, since libav decodes no animated WebP" if _is_webp(container) else "a playable video"
            )
            raise InputError(f"video {one_line(path)}: none of its frames can be decoded; expected {expected}")
        check_picture_size(path, first.width, first.height)
        return Header(
            path=path,
            codec=stream.codec_context.name,
            size=(first.width, first.height),
            orientation=orientation_of(first),
            fps=_rate(stream.average_rate) or _rate(stream.guessed_rate),
            index=header_index(path, stream, packets),
            stream=stream.index,
        )


def _first_frame(container: Any, stream: Any) -> tuple[Any | None, list[tuple[int | None, int | None]]]:
    """The first frame that can be decoded, and (pts, dts) of the packets read up to it."""
    import av

    times = []
    for packet in chain(islice(packets_of(container, stream), _FIRST_FRAME_PACKETS), [None]):
        if packet is not None:
            times.append((packet.pts, packet.dts))
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            continue
        if frames:
            return frames[0], times
    return None, times


def _is_webp(container: Any) -> bool:
    return str(container.format.name).startswith("webp")


def _rate(rate: Fraction | None) -> float | None:
    return float(rate) if rate else None
