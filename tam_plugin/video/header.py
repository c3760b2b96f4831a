"""What the header and the first frame of a video file tell."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError
from tam_plugin.video.container import OpenContainer, check_picture_size, libav_errors, one_line
from tam_plugin.video.integrity import require_whole
from tam_plugin.video.mp4 import header_index
from tam_plugin.video.orientation import Orientation, orientation_of
from tam_plugin.video.scan import PacketScan

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

    @property
    def displayed_size(self) -> tuple[int, int]:
        """(width, height) of the pictures as displayed: after the turn."""
        return self.size[::-1] if self.orientation.swaps_sides else self.size


def read_header(path: str, opened: OpenContainer) -> tuple[Header, PacketScan]:
    """Decode the first frame, which alone tells the turn that it is displayed with.

    Args:
        path: the file.
        opened: the file, just opened.

    Returns:
        The header, and the packets read so far: where the header has no index, the scan that continues to the end.

    Raises:
        InputError: the file is cut short, or no frame of it can be decoded.
    """
    stream = opened.stream
    with libav_errors(path, "cannot be decoded"):
        require_whole(path, opened)
        packets = PacketScan(path, opened)
        first = _first_frame(stream, packets)
    if first is None:
        expected = "an MP4 or a GIF, since libav decodes no animated WebP" if _is_webp(opened) else "a playable video"
        raise InputError(f"video {one_line(path)}: none of its frames can be decoded; expected {expected}")
    check_picture_size(path, first.width, first.height)
    header = Header(
        path=path,
        codec=stream.codec_context.name,
        size=(first.width, first.height),
        orientation=orientation_of(first),
        fps=_rate(stream.average_rate) or _rate(stream.guessed_rate),
        index=header_index(path, stream, packets.times()),
        stream=stream.index,
    )
    return header, packets


def _first_frame(stream: Any, packets: PacketScan) -> Any | None:
    """The first frame that can be decoded."""
    import av

    for packet in chain(islice(packets, _FIRST_FRAME_PACKETS), [None]):
        try:
            frames = stream.codec_context.decode(packet)
        except av.error.FFmpegError:
            continue
        if frames:
            return frames[0]
    return None


def _is_webp(opened: OpenContainer) -> bool:
    return str(opened.container.format.name).startswith("webp")


def _rate(rate: Fraction | None) -> float | None:
    return float(rate) if rate else None
