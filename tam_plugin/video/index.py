"""The frame index: which packet holds which frame, built by demuxing without decoding.

A packet takes 17 bytes (two timestamps and a flag) and three numbers of 8 bytes for its place in the order of
presentation, so an hour at 30 frames a second takes 4.4 MB.
Frames are numbered in the order of presentation; packets in the order of decoding.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import libav_errors, one_line, open_video, packets_of
from tam_plugin.video.integrity import cut_short

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """Packets of a video stream, in the order of decoding, and their order of presentation.

    Attributes:
        pts: int64 ``[P]``, presentation times in units of the stream's time base.
        dts: int64 ``[P]``, decoding times; the least int64 where there is none.
        is_key: bool ``[P]``.
        shown: int64 ``[n]``, the packet of each frame, in the order of presentation.
        seconds_per_tick: the stream's time base.
        from_packets: False where the packets do not tell their frames apart, so that every frame had to be decoded
            to list them: ``pts`` then holds a row for each frame, and frames can only be reached one after the other.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    shown: NDArray[np.int64]
    seconds_per_tick: float
    from_packets: bool = True

    @property
    def num_frames(self) -> int:
        """Frames that are shown, n."""
        return len(self.shown)

    @cached_property
    def timestamps_s(self) -> NDArray[np.float64]:
        """float64 ``[n]``: presentation times, counted from the first frame."""
        pts = self.pts[self.shown]
        return (pts - pts[0]) * self.seconds_per_tick

    @cached_property
    def is_keyframe(self) -> NDArray[np.bool_]:
        """bool ``[n]``: which frames are keyframes, in the order of presentation."""
        return self.is_key[self.shown]

    @cached_property
    def _by_time(self) -> NDArray[np.int64]:
        return np.argsort(self.pts, kind="stable")

    def place_of(self, pts: int | None) -> int | None:
        """The packet that is shown at ``pts``, if the index has one."""
        if pts is None:
            return None
        rank = int(np.searchsorted(self.pts, pts, sorter=self._by_time))
        if rank == len(self.pts) or self.pts[self._by_time[rank]] != pts:
            return None
        return int(self._by_time[rank])

    @cached_property
    def _keys(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.is_key)

    def start_packet(self, packet: int) -> int:
        """The packet to start decoding from for ``packet``'s frame.

        The last keyframe that is decoded no later and shown no later: pictures that follow a keyframe in the file but
        are shown before it (an open group of pictures) need the group before.
        """
        place = int(np.searchsorted(self._keys, packet, side="right")) - 1
        while place > 0 and self.pts[self._keys[place]] > self.pts[packet]:
            place -= 1
        return int(self._keys[max(place, 0)])


def scan_packets(path: str) -> FrameIndex | None:
    """The frame index of ``path`` from its packets, or None where the packets do not tell its frames apart.

    Raises:
        InputError: the file cannot be opened, has no video, or holds no frame.
    """
    pts, dts, key, hidden = array("q"), array("q"), bytearray(), bytearray()
    timed = True
    with open_video(path) as (container, stream), libav_errors(path, "cannot be read to its end"):
        seconds_per_tick = float(stream.time_base)
        for packet in packets_of(container, stream):
            timed = timed and packet.pts is not None
            pts.append(0 if packet.pts is None else packet.pts)
            dts.append(_NO_TIME if packet.dts is None else packet.dts)
            key.append(packet.is_keyframe)
            hidden.append(packet.is_discard)
    if not pts:
        raise InputError(f"video {one_line(path)}: its video stream holds no frame; expected at least one")
    is_key = np.frombuffer(key, np.bool_)
    if not timed or not is_key.any():
        return None
    return ordered_index(
        np.frombuffer(pts, np.int64),
        np.frombuffer(dts, np.int64),
        is_key,
        np.frombuffer(hidden, np.bool_),
        seconds_per_tick,
    )


def ordered_index(
    pts: NDArray[np.int64],
    dts: NDArray[np.int64],
    is_key: NDArray[np.bool_],
    hidden: NDArray[np.bool_],
    seconds_per_tick: float,
) -> FrameIndex | None:
    """The index of packets of which none is without a time; None where two shown ones have the same."""
    visible = np.flatnonzero(~hidden)
    # pictures before the first keyframe (a stream that was cut into) cannot be decoded
    visible = visible[visible >= np.flatnonzero(is_key)[0]]
    shown = visible[np.argsort(pts[visible], kind="stable")]
    if len(shown) == 0 or (np.diff(pts[shown]) <= 0).any():
        return None
    return FrameIndex(pts=pts, dts=dts, is_key=is_key, shown=shown, seconds_per_tick=seconds_per_tick)


def scan_frames(path: str, *, num_threads: int = 1) -> FrameIndex:
    """The frame index of ``path`` from decoding all of it: for streams whose packets do not tell frames apart.

    Raises:
        InputError: no frame can be decoded, or some packet is damaged; the message says how many frames were read.
    """
    pts, key = array("q"), bytearray()
    timed = True
    with open_video(path, num_threads=num_threads) as (container, stream):
        seconds_per_tick = float(stream.time_base)
        seconds_per_frame = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        for frame in decoded_frames(path, container, stream):
            timed = timed and frame.pts is not None and (not pts or frame.pts > pts[-1])
            pts.append(0 if frame.pts is None else frame.pts)
            key.append(bool(frame.key_frame))
    if not pts:
        raise InputError(f"video {one_line(path)}: none of its frames can be decoded; expected a playable video")
    times = np.frombuffer(pts, np.int64)
    if not timed:  # a bare stream: frames follow each other at its nominal rate
        times, seconds_per_tick = np.arange(len(pts)), seconds_per_frame
    return FrameIndex(
        pts=times,
        dts=np.full(len(pts), _NO_TIME),
        is_key=np.frombuffer(key, np.bool_),
        shown=np.arange(len(pts)),
        seconds_per_tick=seconds_per_tick,
        from_packets=False,
    )


def decoded_frames(path: str, container: Any, stream: Any) -> Any:
    """Every frame of ``stream``, in the order of presentation, decoded from the start.

    Raises:
        InputError: a packet is damaged; the message says how many frames came before the end.
    """
    import av

    count = 0
    damaged = False
    with libav_errors(path, "cannot be read to its end"):
        for packet in chain(packets_of(container, stream), [None]):
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.InvalidDataError:
                damaged = damaged or count > 0  # a stream that was cut into starts with packets that nothing can decode
                continue
            for frame in frames:
                count += 1
                yield frame
    if damaged:
        raise cut_short(path, count)
