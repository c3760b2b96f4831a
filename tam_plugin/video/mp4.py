"""The frame index of an MP4 or MOV file from its header alone: the frames' data, often gigabytes, are not read.

libav tells the decoding time, place and kind of every frame of such a file; only the composition offsets, which order
the frames for presentation, it keeps to itself. They stand in the track's ``ctts`` box (ISO/IEC 14496-12, 8.6.1.3).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from tam_plugin.video.index import PacketIndex
from tam_plugin.video.integrity import header_entries
from tam_plugin.video.packets import PacketTable, doubtful_start, index_of, reorders

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_HEADER = 1 << 28


def header_index(path: str, stream: Any, first_packets: list[tuple[int | None, int | None]]) -> PacketIndex | None:
    """The frame index from the header, or None where the header does not tell it beyond doubt.

    Args:
        path: the file.
        stream: its open video stream.
        first_packets: (pts, dts) of the stream's first packets: what the header gives for them must agree.
    """
    entries = header_entries(stream)
    if entries is None or "mp4" not in stream.container.format.name:
        return None
    dts, byte, is_key = array("q"), array("q"), bytearray()
    for entry in entries:
        if entry.is_discard:  # an edit list is at work
            return None
        dts.append(entry.timestamp)
        byte.append(entry.pos)
        is_key.append(entry.is_keyframe)
    offsets = composition_offsets(path, stream.id, len(dts))
    if offsets is None or not first_packets or None in first_packets[0]:
        return None
    decoding = np.frombuffer(dts, np.int64)
    pts = decoding + offsets
    pts += first_packets[0][0] - pts[0]  # libav shifts all times so that no frame is shown before it is decoded
    if list(zip(pts.tolist(), dts, strict=True))[: len(first_packets)] != first_packets:
        return None
    table = PacketTable(
        pts=pts,
        dts=decoding,
        is_key=np.frombuffer(is_key, np.bool_),
        hidden=np.zeros(len(pts), np.bool_),
        duration=_durations(decoding, stream.duration),
        byte=np.frombuffer(byte, np.int64),
        seconds_per_tick=float(stream.time_base),
        reorders=reorders(stream),
        restarts=False,
    )
    index = None if doubtful_start(table) else index_of(table)
    return index if isinstance(index, PacketIndex) else None


def _durations(dts: NDArray[np.int64], total: int | None) -> NDArray[np.int64]:
    """int64 ``[P]``: how long each frame stands: until the next is decoded, the last one until the track ends."""
    ends = dts[0] + total if total else dts[-1]
    return np.maximum(np.diff(dts, append=ends), 0)


def composition_offsets(path: str, track: int, count: int) -> NDArray[np.int64] | None:
    """int64 ``[count]``: how much later than it is decoded each frame of a track is shown, in the track's ticks.

    None where the file has no such table of ``count`` frames: it is damaged, or no MP4; or where an edit list puts
    several pieces together. A track without a ``ctts`` box shows its frames as they are decoded.
    """
    with open(path, "rb") as file:
        movie = _movie_box(file)
    found = next((box for kind, box in _boxes(movie) if kind == b"trak" and _track_number(box) == track), None)
    edits = 0 if found is None else _edits(found)
    for inner in (b"mdia", b"minf", b"stbl"):
        found = None if found is None else _child(found, inner)
    if found is None or edits > 1:
        return None
    table = _child(found, b"ctts")
    return np.zeros(count, np.int64) if table is None else _expanded(table, count)


def _movie_box(file: BinaryIO) -> memoryview:
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        header = 8
        if size == 1:
            size, header = int.from_bytes(file.read(8), "big"), 16
        if kind == b"moov" and header <= size <= _LARGEST_HEADER:
            return memoryview(file.read(size - header))
        if size < header or kind == b"moov":
            break
        file.seek(size - header, 1)
    return memoryview(b"")


def _boxes(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    start = 0
    while start + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        if size < 8:
            return
        yield kind, content[start + 8 : start + size]
        start += size


def _child(content: memoryview, name: bytes) -> memoryview | None:
    return next((inner for kind, inner in _boxes(content) if kind == name), None)


def _track_number(track: memoryview) -> int | None:
    head = _child(track, b"tkhd")
    if head is None or len(head) < 24:
        return None
    place = 20 if head[0] == 1 else 12  # version 1 has times of 64 bits
    return int.from_bytes(head[place : place + 4], "big")


def _edits(track: memoryview) -> int:
    """Pieces of the track that its edit list shows; an empty edit at the start only delays it."""
    box = _child(track, b"edts")
    table = None if box is None else _child(box, b"elst")
    if table is None or len(table) < 8:
        return 0
    entry, start = (20, 8) if table[0] == 1 else (12, 4)
    count = min(int.from_bytes(table[4:8], "big"), (len(table) - 8) // entry)
    times = (table[8 + entry * i + start : 8 + entry * i + 2 * start] for i in range(count))
    return sum(int.from_bytes(time, "big", signed=True) >= 0 for time in times)


def _expanded(table: memoryview, count: int) -> NDArray[np.int64] | None:
    if len(table) < 8:
        return None
    runs = int.from_bytes(table[4:8], "big")
    if len(table) < 8 + 8 * runs:
        return None
    rows = np.frombuffer(table, ">i4", 2 * runs, 8).reshape(runs, 2).astype(np.int64)
    if (rows[:, 0] < 0).any() or rows[:, 0].sum() != count:
        return None
    return np.repeat(rows[:, 1], rows[:, 0])
