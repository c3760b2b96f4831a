"""The PyAV reader: each wanted frame is decoded from the keyframe before it, by several containers side by side.

What makes it fast, with the pixels of a plain decode:

- targets in the same group of pictures are reached in one pass, and groups that follow each other without a seek;
- pictures that no other picture refers to are skipped unless they are wanted (H.264, MPEG-1, -2 and -4 mark them);
- the decoder is drained as soon as the last target of a group was sent, so no frame beyond it is decoded;
- PyAV lets go of the interpreter while libav decodes, so threads that each own a container share the groups;
- only wanted frames are converted to RGB, at the size wanted, one frame in flight per thread.

What proves the frames: a frame is taken by the time that the decoder gives it, and the times that come out of the
decoder must rise. The first pictures of a file are decoded without skipping any, and so is every group of a file whose
times look invented. Where that does not hold, the file is read in order (:mod:`tam_plugin.video.in_order`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

from tam_plugin.video.container import OpenContainer, libav_errors, open_container
from tam_plugin.video.cursor import PacketCursor
from tam_plugin.video.damage import PacketDamage
from tam_plugin.video.in_order import read_in_order
from tam_plugin.video.index import PacketIndex
from tam_plugin.video.reading import NOT_READ, IndexBrokenError, Reading, ReadRequest, sampling_intervals
from tam_plugin.video.writing import FrameWriter

_SKIPPABLE_CODECS = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose unreferenced pictures are marked so that no other picture can need them. HEVC's marks hold within one
temporal sub-layer only, so nothing is skipped there."""

_CONCEALING_CODECS = frozenset({"ffv1"})
"""Codecs that put the picture decoded before in place of a broken part, and say nothing of it: decoding starts one
group earlier, so that it is the picture that players see there."""

_FORGETTING_CODECS = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg"}
)
"""Codecs whose decoder, once flushed, is like a new one. Others keep the last picture and show it where the next is
broken (QuickTime Animation, FFV1, ...), so each reading of them has a decoder of its own."""

_READ_ON_PACKETS = 64
"""A group that starts at most this many packets ahead is reached by reading on, which is cheaper than a seek."""

_PROVING_PACKETS = 16
"""Pictures at the start of a file that are decoded without skipping any: times in a wrong order show there."""

_REPLACING_ROUNDS = 16
"""Times that a damaged frame's neighbours are tried before it is shown as it is."""


@dataclass(frozen=True)
class _Group:
    """Targets that are decoded in one pass: packets [start, last], and the row of ``out`` for each wanted time."""

    start: int
    last: int
    rows: dict[int, int]


@dataclass(frozen=True)
class _Damaged:
    """A row whose frame is damaged, the frames [since, until) around it that are, and whether a picture came out."""

    row: int
    since: int
    until: int
    pictured: bool


def read(request: ReadRequest) -> Reading:
    """Fill ``request.out`` with the frames wanted; see :class:`tam_plugin.video.reading.Reading`."""
    if not isinstance(request.index, PacketIndex):
        return read_in_order(request)
    shown = request.indices.copy()
    found = {one.row: one for one in _read_groups(request, request.index, dict(enumerate(shown.tolist())))}
    damaged = tuple(sorted(found))
    for _ in range(_REPLACING_ROUNDS):
        instead = _nearest_beyond(found.values(), request)
        if not instead:
            break
        again = {one.row: one for one in _read_groups(request, request.index, instead)}
        for row, place in instead.items():
            if row in again:  # damaged too: look beyond both
                since, until = again[row].since, again[row].until
                found[row] = replace(found[row], since=min(found[row].since, since), until=max(found[row].until, until))
            else:
                shown[row] = place
                del found[row]
    # where no whole frame of the interval was found, the damaged picture itself is shown, if there is one
    as_they_are = {row: int(shown[row]) for row in found}
    for one in _read_groups(request, request.index, as_they_are) if as_they_are else ():
        if not one.pictured:
            shown[one.row] = NOT_READ
    return Reading(index=request.index, shown=shown, damaged=damaged)


def _nearest_beyond(found: Iterable[_Damaged], request: ReadRequest) -> dict[int, int]:
    """Row → the nearest frame of its sampling interval that is not known to be damaged, where there is one."""
    least, most = sampling_intervals(request.indices)
    instead = {}
    for one in found:
        wanted = int(request.indices[one.row])
        furthest = min(int(most[one.row]), request.index.num_frames - 1)
        near = [place for place in (one.since - 1, one.until) if least[one.row] <= place <= furthest]
        if near:
            instead[one.row] = min(near, key=lambda place: abs(place - wanted))
    return instead


def _read_groups(request: ReadRequest, index: PacketIndex, places: dict[int, int]) -> list[_Damaged]:
    """Read frame ``places[row]`` into each row; returns the rows whose frame is damaged.

    Raises:
        IndexBrokenError: what was decoded does not fit the index.
    """
    groups = _groups(index, places, start_earlier=request.codec in _CONCEALING_CODECS)
    workers = max(1, min(request.num_threads, len(groups)))
    queue = _Queue(iter(groups))
    # with fewer groups than threads, the decoder's own threads take the rest
    codec_threads = request.num_threads if workers == 1 else 1
    if workers == 1:
        found = _work(request, index, queue, codec_threads)
        if not found or codec_threads == 1:
            return found
        # several decoder threads say late what failed, and conceal it in another way on each run
        return _work(request, index, _Queue(iter(groups)), 1)
    with ThreadPoolExecutor(workers) as pool:
        parts = pool.map(lambda _: _work(request, index, queue, codec_threads), range(workers))
        return [one for part in parts for one in part]


def _groups(index: PacketIndex, places: dict[int, int], *, start_earlier: bool) -> list[_Group]:
    rows: dict[int, dict[int, int]] = {}
    last: dict[int, int] = {}
    for row, place in places.items():
        packet = int(index.shown[place])
        start = index.start_packet(packet)
        before = index.earlier_start(start) if start_earlier else None
        start = start if before is None else before
        rows.setdefault(start, {})[int(index.pts[packet])] = row
        last[start] = max(last.get(start, packet), packet)
    first = int(index.keys[0])
    if first in last:  # read on, within the group, until its order is proved
        following = int(index.keys[1]) if len(index.keys) > 1 else len(index.pts)
        last[first] = max(last[first], min(first + _PROVING_PACKETS, following - 1))
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

    def clear(self) -> None:
        """Hand out no more groups."""
        with self.lock:
            self.groups = iter(())


def _work(request: ReadRequest, index: PacketIndex, queue: _Queue, codec_threads: int) -> list[_Damaged]:
    """Read groups off the queue with a container of one's own; returns the rows whose frame is damaged."""
    import av

    damaged: list[_Damaged] = []
    writer = FrameWriter(request)
    try:
        with ExitStack() as stack:
            opened = stack.enter_context(_container(request, index, codec_threads))
            was_read, cursor = not opened.at_start, PacketCursor(opened, index, read_on_packets=_READ_ON_PACKETS)
            while (group := queue.take()) is not None:
                with libav_errors(request.path, "cannot be decoded"):
                    found: list[_Damaged] | None = None
                    try:
                        found = _read_surely(group, cursor, writer)
                    except (IndexBrokenError, av.error.FFmpegError):
                        if not was_read:
                            raise
                    if was_read and found != []:
                        # not every format goes back to its start: trouble counts only in a container that starts there
                        opened = stack.enter_context(open_container(request.path, num_threads=codec_threads))
                        was_read, cursor = False, PacketCursor(opened, index, read_on_packets=_READ_ON_PACKETS)
                        found = _read_surely(group, cursor, writer)
                    damaged += found or ()
    except BaseException:
        queue.clear()
        raise
    return damaged


def _container(request: ReadRequest, index: PacketIndex, codec_threads: int) -> AbstractContextManager[OpenContainer]:
    # libav reads a Matroska file to its end before it goes back to an only keyframe: opening is cheaper
    if request.codec in _FORGETTING_CODECS and len(index.keys) > 1:
        return request.containers.lend(codec_threads)
    return open_container(request.path, num_threads=codec_threads)


def _read_surely(group: _Group, cursor: PacketCursor, writer: FrameWriter) -> list[_Damaged]:
    """Decode one group; where frames seem damaged, once more from an earlier keyframe.

    A keyframe that needs pictures before it (intra refresh) is no damage.
    """
    found = _read_group(group, cursor, writer)
    before = cursor.index.earlier_start(group.start) if found else None
    if before is None:
        return found
    hurt = {one.row for one in found}
    rows = {pts: row for pts, row in group.rows.items() if row in hurt}
    return _read_group(_Group(before, group.last, rows), cursor, writer)


def _read_group(group: _Group, cursor: PacketCursor, writer: FrameWriter) -> list[_Damaged]:
    """Decode one group; returns its rows whose frame is damaged or did not come out because of damage.

    Raises:
        IndexBrokenError: frames came out in another order than their times say, or did not come out at all.
    """
    import av

    index = cursor.index
    wanted = dict(group.rows)
    damage = PacketDamage(index, group.start)
    codec = cursor.codec
    skips = codec.name in _SKIPPABLE_CODECS and not index.suspicious
    proving = group.start + _PROVING_PACKETS if group.start == index.keys[0] else group.start
    codec.flush_buffers()
    latest: int | None = None

    def feed(place: int, packet: Any) -> None:
        nonlocal latest
        try:
            frames = codec.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            damage.failed(place)
            return
        for frame in frames:
            damage.came_out(frame)
            if not damage and (frame.pts is None or (latest is not None and frame.pts <= latest)):
                raise IndexBrokenError("its frames come out of the decoder in another order than its times say")
            latest = frame.pts
            row = wanted.pop(frame.pts, None)
            if row is not None:
                writer.write(row, frame)

    for place, packet in cursor.packets(group.start, group.last):
        if not index.holds(place, packet):
            raise IndexBrokenError("its packets are others after a seek than in the order of the file")
        if packet.is_corrupt:  # the container says so
            damage.failed(place)
        if skips:
            codec.skip_frame = "DEFAULT" if place <= proving or packet.pts in wanted else "NONREF"
        feed(place, packet)
    feed(group.last, None)
    if wanted and not damage:
        raise IndexBrokenError("some of its packets hold no frame of their own")
    spans = {row: damage.around(pts, missing=pts in wanted) for pts, row in group.rows.items()}
    missing = set(wanted.values())
    return [_Damaged(row, *span, row not in missing) for row, span in spans.items() if span is not None]
