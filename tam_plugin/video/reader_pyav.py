"""The PyAV reader: each wanted frame is decoded from the keyframe before it, by several containers side by side.

What makes it fast, with the pixels of a plain decode:

- targets in the same group of pictures are reached in one pass, and groups that follow each other without a seek;
- pictures that no other picture refers to are skipped unless they are wanted (H.264, MPEG-1, -2 and -4 mark them);
- the decoder is drained as soon as the last target of a group was sent, so no frame beyond it is decoded;
- PyAV lets go of the interpreter while libav decodes, so threads that each own a container share the groups;
- only wanted frames are converted to RGB, at the size wanted, one frame in flight a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.video.container import libav_errors, open_video, packets_of
from tam_plugin.video.index import decoded_frames
from tam_plugin.video.reader import FramesMissingError, ReadRequest
from tam_plugin.video.scaling import conversion_settings, scaling_flags

if TYPE_CHECKING:
    from tam_plugin.video.index import FrameIndex

_PIXEL = np.dtype("V3")
"""An RGB pixel as one element: turning a picture moves pixels, not single bytes."""

_SKIPPABLE_CODECS = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose unreferenced pictures are marked so that no other picture can need them. HEVC's marks hold within one
temporal sub-layer only, so nothing is skipped there."""

_SEEK_EARLIER_S = (0.5, 2.0, 8.0, 32.0)
"""How much earlier to seek, in turn, where a container's seek lands behind the keyframe asked for."""

_READ_ON_PACKETS = 64
"""A group that starts at most this many packets ahead is reached by reading on, which is cheaper than a seek."""


@dataclass(frozen=True)
class _Group:
    """Targets that are decoded in one pass: packets [start, last], and the row of ``out`` for each wanted time."""

    start: int
    last: int
    rows: dict[int, int]


def read(request: ReadRequest) -> None:
    """Fill ``request.out`` with the frames wanted; see :class:`tam_plugin.video.reader.Reader`."""
    if not request.index.from_packets:
        _read_in_order(request)
        return
    groups = _groups(request.index, request.indices)
    workers = max(1, min(request.num_threads, len(groups)))
    queue = _Queue(iter(groups))
    # with fewer groups than threads, the decoder's own threads take the rest
    codec_threads = request.num_threads if workers == 1 else 1
    if workers == 1:
        missing = _work(request, queue, codec_threads)
    else:
        with ThreadPoolExecutor(workers) as pool:
            missing = sum(pool.map(lambda _: _work(request, queue, codec_threads), range(workers)))
    if missing:
        raise FramesMissingError(len(request.indices) - missing)


def _groups(index: FrameIndex, indices: np.ndarray) -> list[_Group]:
    rows: dict[int, dict[int, int]] = {}
    last: dict[int, int] = {}
    for row, packet in enumerate(index.shown[indices].tolist()):
        start = index.start_packet(packet)
        rows.setdefault(start, {})[int(index.pts[packet])] = row
        last[start] = max(last.get(start, packet), packet)
    groups = [_Group(start, last[start], rows[start]) for start in sorted(rows)]
    # long ones first, so that no thread is left with one at the end; short ones in order, to be reached by reading on
    return sorted(groups, key=lambda group: min(0, _READ_ON_PACKETS - (group.last - group.start)))


@dataclass
class _Queue:
    """Groups that are still to be read, handed out one at a time."""

    groups: Iterator[_Group]
    lock: Lock = field(default_factory=Lock)

    def take(self) -> _Group | None:
        with self.lock:
            return next(self.groups, None)


def _work(request: ReadRequest, queue: _Queue, codec_threads: int) -> int:
    """Read groups off the queue with a container of one's own; the number of frames that did not come out."""
    missing = 0
    with open_video(request.path, num_threads=codec_threads) as (container, stream):
        cursor = _Cursor(container, stream, request.index)
        writer = FrameWriter(request)
        while (group := queue.take()) is not None:
            with libav_errors(request.path, "cannot be decoded"):
                missing += _read_group(group, cursor, stream, writer)
    return missing


def _read_group(group: _Group, cursor: _Cursor, stream: Any, writer: FrameWriter) -> int:
    import av

    wanted = dict(group.rows)
    codec = stream.codec_context
    skips = codec.name in _SKIPPABLE_CODECS
    codec.flush_buffers()

    def feed(packet: Any) -> None:
        try:
            frames = codec.decode(packet)
        except av.error.InvalidDataError:
            return  # a damaged packet: what it held is counted as missing
        for frame in frames:
            row = wanted.pop(frame.pts, None)
            if row is not None:
                writer.write(row, frame)

    for packet in cursor.packets(group.start, group.last):
        if skips:
            codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        feed(packet)
    feed(None)
    return len(wanted)


class _Cursor:
    """Reads packets of a stream from any place on, seeking only where reading on would take longer."""

    def __init__(self, container: Any, stream: Any, index: FrameIndex) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._packets: Iterator[Any] = packets_of(container, stream)
        self._next = 0

    def packets(self, start: int, last: int) -> Iterator[Any]:
        """Packets [start, last], in the order of decoding; fewer where the file ends or ``start`` is not found."""
        if not 0 <= start - self._next <= _READ_ON_PACKETS:
            self._seek(start, 0.0)
        packet = self._find(start)
        for earlier_s in _SEEK_EARLIER_S:
            if packet is not None:
                break
            self._seek(start, earlier_s)
            packet = self._find(start)
        place = start
        while packet is not None:
            self._next = place + 1
            yield packet
            if place == last:
                return
            place += 1
            packet = next(self._packets, None)

    def _find(self, start: int) -> Any | None:
        """Read on until packet ``start``; None if the place read from lies behind it."""
        for packet in self._packets:
            place = self._index.place_of(packet.pts)
            if place == start:
                return packet
            if place is not None and place > start:
                return None
        return None

    def _seek(self, start: int, earlier_s: float) -> None:
        ticks = int(self._index.pts[start]) - round(earlier_s / self._index.seconds_per_tick)
        self._container.seek(ticks, stream=self._stream, backward=True)
        self._packets = packets_of(self._container, self._stream)


def _read_in_order(request: ReadRequest) -> None:
    """Decode from the first frame to the last one wanted: for streams whose frames can only be counted."""
    rows = {place: row for row, place in enumerate(request.indices.tolist())}
    with open_video(request.path, num_threads=request.num_threads) as (container, stream):
        writer = FrameWriter(request)
        for place, frame in enumerate(decoded_frames(request.path, container, stream)):
            row = rows.pop(place, None)
            if row is not None:
                writer.write(row, frame)
            if not rows:
                return
    raise FramesMissingError(len(request.indices) - len(rows))


class FrameWriter:
    """Converts decoded frames to upright RGB of the size wanted, straight into the output array."""

    def __init__(self, request: ReadRequest) -> None:
        from av.video.reformatter import VideoReformatter

        self._out = request.out.view(_PIXEL)[..., 0]
        self._orientation = request.orientation
        self._reformatter = VideoReformatter()
        width, height = request.stored_size
        self._settings: dict[str, Any] = {"format": "rgb24", "width": width, "height": height}
        if request.scales:
            self._settings["interpolation"] = scaling_flags()

    def write(self, row: int, frame: Any) -> None:
        """Put ``frame`` (an ``av.VideoFrame``) into row ``row``."""
        rgb = self._reformatter.reformat(frame, **self._settings, **conversion_settings(frame))
        plane = rgb.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height, : rgb.width * 3]
        self._out[row] = self._orientation.apply(lines.view(_PIXEL))
