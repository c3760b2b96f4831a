"""Reading in order: every frame decoded from the start, in the decoder's own order, which is the order players show.

It is the way for files whose packets do not tell their frames apart, and costs the decoding of the whole file.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import OpenContainer, libav_errors, one_line, open_container
from tam_plugin.video.damage import Trouble, whole_in_order
from tam_plugin.video.index import LONGEST_STILL_S, FrameIndex, plausible_s
from tam_plugin.video.reading import NOT_READ, Reading, ReadRequest, sampling_intervals
from tam_plugin.video.writing import FrameWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray


_JOINT_PACKETS = 4
"""Packets before a joint of recordings that libav may call corrupt."""


def decoded_frames(path: str, opened: OpenContainer) -> Iterator[tuple[Any | None, bool]]:
    """Every frame in the order of presentation, decoded from the start, and whether it is whole.

    A frame that did not come out of the decoder is None.

    Args:
        path: the file.
        opened: the file, of which nothing was read yet.
    """
    return whole_in_order(_decoded(path, opened))


def _decoded(path: str, opened: OpenContainer) -> Iterator[tuple[Any | None, Trouble | None]]:
    """What comes out of the decoder, and what is wrong with it; None for a frame that does not come out."""
    import av

    with libav_errors(path, "cannot be read to its end"):
        for packet, is_corrupt in chain(_with_marks(opened.packets()), [(None, False)]):
            if is_corrupt:
                yield None, Trouble.MARKED
            try:
                frames = opened.stream.codec_context.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                yield None, Trouble.LOST
                continue
            for frame in frames:
                yield frame, Trouble.MARKED if frame.is_corrupt else None


def _with_marks(packets: Iterator[Any]) -> Iterator[tuple[Any, bool]]:
    """Packets, and whether their container says that they are corrupt.

    Where recordings were joined, the last packets of the first one are called corrupt only because others follow.
    """
    ahead: deque[Any] = deque(islice(packets, _JOINT_PACKETS))
    while ahead:
        packet = ahead.popleft()
        ahead.extend(islice(packets, 1))
        at_joint = packet.is_corrupt and any(
            later.dts is not None and packet.dts is not None and later.dts < packet.dts for later in ahead
        )
        yield packet, packet.is_corrupt and not at_joint


def scan_frames(path: str, *, by_packets: FrameIndex | None = None, num_threads: int = 1) -> FrameIndex:
    """The frame index of ``path`` from decoding all of it: for streams whose packets do not tell frames apart.

    Args:
        path: the file.
        by_packets: what its packets tell, if that is known.
        num_threads: threads inside the decoder.

    Raises:
        InputError: no frame can be decoded.
    """
    with open_container(path, num_threads=num_threads) as opened:
        times = _Times(opened.stream)
        for frame, _ in decoded_frames(path, opened):
            times.add(frame)
    return times.index(path, by_packets)


def read_in_order(request: ReadRequest) -> Reading:
    """Decode the whole file once and fill ``request.out`` on the way; a damaged file twice.

    Several decoder threads conceal damage in another way on each run, so a file with damage is read again by one.

    Returns:
        What was read. Its index is that of the frames that were really decoded: where their number is not the one that
        ``request.index`` expected, the frames taken are not the ones wanted, and the caller asks again by that index.
    """
    reading, damaged = _read(request, request.num_threads)
    return _read(request, 1)[0] if damaged and request.num_threads > 1 else reading


def _read(request: ReadRequest, num_threads: int) -> tuple[Reading, bool]:
    """One pass, and whether there was any damage."""
    damaged = False
    with open_container(request.path, num_threads=num_threads) as opened:
        times = _Times(opened.stream)
        taker = _Taker(request, FrameWriter(request))
        for place, (frame, whole) in enumerate(decoded_frames(request.path, opened)):
            times.add(frame)
            taker.offer(place, frame, whole)
            damaged = damaged or not whole
    index = times.index(request.path, request.index)
    return Reading(index=index, shown=taker.shown, damaged=tuple(taker.damaged)), damaged


@dataclass
class _Taker:
    """Takes the frames wanted as they come by; a damaged one is replaced by the nearest whole one of its interval."""

    request: ReadRequest
    writer: FrameWriter
    damaged: list[int] = field(default_factory=list)
    _row: int = 0
    _pending: tuple[int, float] | None = None
    _last_whole: tuple[int, Any] | None = None

    def __post_init__(self) -> None:
        self._wanted = self.request.indices.tolist()
        self._least, self._most = (side.tolist() for side in sampling_intervals(self.request.indices))
        self.shown: NDArray[np.int64] = np.full(len(self._wanted), NOT_READ, np.int64)

    def offer(self, place: int, frame: Any | None, whole: bool) -> None:
        """Look at frame number ``place``; None where it did not come out of the decoder."""
        if self._pending is not None and whole:
            row, distance = self._pending
            if place <= self._most[row] and place - self._wanted[row] < distance:
                self._take(row, place, frame)
            self._pending = None
        if self._row < len(self._wanted) and place == self._wanted[self._row]:
            self._wanted_frame(self._row, place, frame, whole)
            self._row += 1
        if whole:
            self._last_whole = (place, frame)

    def _wanted_frame(self, row: int, place: int, frame: Any | None, whole: bool) -> None:
        if whole:
            self._take(row, place, frame)
            return
        self.damaged.append(row)
        before = self._last_whole
        if before is not None and before[0] >= self._least[row]:
            self._take(row, *before)
            self._pending = (row, place - before[0])
        else:
            if frame is not None:
                self._take(row, place, frame)
            self._pending = (row, float("inf"))

    def _take(self, row: int, place: int, frame: Any) -> None:
        self.writer.write(row, frame)
        self.shown[row] = place


class _Times:
    """Times of frames as they are decoded, and the index that follows from them."""

    def __init__(self, stream: Any) -> None:
        self._seconds_per_tick = float(stream.time_base)
        self._fps = float(stream.average_rate or stream.guessed_rate or 25)
        self._pts, self._places, self._key = array("q"), array("q"), bytearray()
        self._rising, self._last = True, 0

    def add(self, frame: Any | None) -> None:
        """Note the next frame; None where it did not come out of the decoder."""
        self._key.append(frame is not None and bool(frame.key_frame))
        if frame is None:
            return
        step = 1 if frame.pts is None or not self._pts else frame.pts - self._pts[-1]
        self._rising = self._rising and frame.pts is not None and 0 < step * self._seconds_per_tick <= LONGEST_STILL_S
        self._pts.append(0 if frame.pts is None else frame.pts)
        self._places.append(len(self._key) - 1)
        self._last = getattr(frame, "duration", 0) or 0

    def index(self, path: str, by_packets: FrameIndex | None) -> FrameIndex:
        """The index of the frames decoded; the packets' times stand where there are as many of them."""
        if not self._pts:
            raise InputError(f"video {one_line(path)}: none of its frames can be decoded; expected a playable video")
        key = np.frombuffer(self._key, np.bool_)
        reason = (by_packets and by_packets.in_order) or "its frames come out in another order than its times say"
        if by_packets is not None and by_packets.timed and by_packets.num_frames == len(key):
            times, last_s = by_packets.timestamps_s, by_packets.last_s
            return FrameIndex(timestamps_s=times, is_keyframe=key, last_s=last_s, in_order=reason)
        last_s = plausible_s(self._last * self._seconds_per_tick)
        places = np.arange(len(key))
        if self._rising:  # frames that did not come out lie between their neighbours
            ticks = np.frombuffer(self._pts, np.int64)
            found_s = (ticks - ticks[0]) * self._seconds_per_tick
            times = _spread(places, np.frombuffer(self._places, np.int64), found_s, 1 / self._fps)
        else:  # frames follow each other at the nominal rate
            times, last_s = places / self._fps, 1 / self._fps
        return FrameIndex(timestamps_s=times, is_keyframe=key, last_s=last_s, in_order=reason)


def _spread(
    places: NDArray[np.int64], known: NDArray[np.int64], found_s: NDArray[np.float64], usual_s: float
) -> NDArray[np.float64]:
    """Times for all ``places`` from those that are ``known``, counted from the first."""
    times = np.interp(places, known, found_s)
    times += np.minimum(places - known[0], 0) * usual_s + np.maximum(places - known[-1], 0) * usual_s
    return times - times[0]
