"""The scan of a file's packets: what demuxing tells, without decoding, read once from the start to the end."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import OpenContainer, libav_errors, one_line, open_container
from tam_plugin.video.damage import frame_kind
from tam_plugin.video.index import NO_TIME, FrameIndex
from tam_plugin.video.packets import (
    DEEPEST_REORDERING,
    PacketTable,
    doubtful_start,
    index_of,
    leading_packets,
    reorders,
)

_RESTARTING_FORMATS = frozenset({"mpegts", "mpeg"})
"""Formats whose times may jump ahead where recordings were joined, as they fall elsewhere (libav's TS_DISCONT)."""


class PacketScan:
    """What the packets of a video stream tell, noted as they are read, each of them once.

    Iterating reads on, however far it was read before; :meth:`index` reads the rest.

    Args:
        path: the file.
        opened: the file, of which nothing was read yet.
    """

    def __init__(self, path: str, opened: OpenContainer) -> None:
        self._path = path
        self._container, self._stream = opened.container, opened.stream
        self._reorders = reorders(opened.stream)  # before a frame is decoded, which may change it
        self._packets = opened.packets()
        self._pts, self._dts, self._duration, self._byte = array("q"), array("q"), array("q"), array("q")
        self._key, self._hidden = bytearray(), bytearray()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        packet = next(self._packets)
        self._pts.append(NO_TIME if packet.pts is None else packet.pts)
        self._dts.append(NO_TIME if packet.dts is None else packet.dts)
        self._duration.append(packet.duration or 0)
        self._byte.append(-1 if packet.pos is None else packet.pos)
        self._key.append(packet.is_keyframe)
        self._hidden.append(packet.is_discard)
        return packet

    def times(self) -> list[tuple[int | None, int | None]]:
        """(pts, dts) of the packets read so far."""
        times = zip(self._pts, self._dts, strict=True)
        return [(None if pts == NO_TIME else pts, None if dts == NO_TIME else dts) for pts, dts in times]

    def index(self) -> FrameIndex:
        """The frame index by all packets; see :func:`tam_plugin.video.packets.index_of`.

        Raises:
            InputError: the file cannot be read to its end, or holds no frame.
        """
        with libav_errors(self._path, "cannot be read to its end"):
            for _ in self:
                pass
            table = self._table()
        if not self._pts:
            raise InputError(f"video {one_line(self._path)}: its video stream holds no frame; expected at least one")
        return index_of(_with_true_start(self._path, table) if doubtful_start(table) else table)

    def _table(self) -> PacketTable:
        return PacketTable(
            pts=np.frombuffer(self._pts, np.int64),
            dts=np.frombuffer(self._dts, np.int64),
            is_key=np.frombuffer(self._key, np.bool_),
            hidden=np.frombuffer(self._hidden, np.bool_),
            duration=np.frombuffer(self._duration, np.int64),
            byte=np.frombuffer(self._byte, np.int64),
            seconds_per_tick=float(self._stream.time_base),
            reorders=self._reorders,
            restarts=self._container.format.name in _RESTARTING_FORMATS,
            told_end_s=_told_end_s(self._container, self._stream, self._pts[0] if self._pts else NO_TIME),
        )


def _with_true_start(path: str, table: PacketTable) -> PacketTable:
    """The table with the keyframe that decoding really starts at, and without leading frames that do not come out."""
    import av

    marked = int(np.flatnonzero(table.is_key)[0])
    last = max([marked, *leading_packets(table, marked).tolist()]) + DEEPEST_REORDERING
    places = {int(pts): place for place, pts in enumerate(table.pts[: last + 1].tolist()) if pts != NO_TIME}
    came_out: dict[int, bool] = {}
    with open_container(path) as opened, libav_errors(path, "cannot be decoded"):
        for packet in chain(islice(opened.packets(), last + 1), [None]):
            try:
                frames = opened.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                continue
            for frame in frames:
                if frame.pts in places and not frame.is_corrupt:
                    came_out[places[frame.pts]] = frame.key_frame or frame_kind(frame) == "I"
    first = min((place for place, is_intra in came_out.items() if is_intra and place < marked), default=marked)
    is_key, hidden = table.is_key.copy(), table.hidden.copy()
    is_key[first] = True
    leading = leading_packets(replace(table, is_key=is_key), first)
    hidden[leading[~np.isin(leading, list(came_out))]] = True
    return replace(table, is_key=is_key, hidden=hidden)


def _told_end_s(container: Any, stream: Any, first_pts: int) -> float:
    """What formats whose packets do not tell how long the last picture stands say of its end in their headers.

    Matroska and FLV give each packet the usual duration of a frame, and AVI knows no times at all.
    """
    name = container.format.name
    if name == "avi" and stream.duration and first_pts != NO_TIME:
        return float((first_pts + stream.duration) * stream.time_base)
    if name in ("matroska,webm", "flv"):
        alone = len(container.streams) == 1
        return _clock_s(stream.metadata.get("DURATION", "")) or (container.duration or 0) / 1e6 * alone
    return -math.inf


def _clock_s(text: str) -> float:
    """Seconds of ``hh:mm:ss.fraction``; 0 for anything else."""
    match = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", text.strip("\0 "), re.ASCII)
    if match is None:
        return 0.0
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
