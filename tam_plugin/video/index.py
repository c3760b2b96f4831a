"""The frame index: which frames a video shows, when, and how they are reached.

An index from packets (:class:`PacketIndex`) is built by demuxing without decoding. A packet takes 25 bytes (two
timestamps, its place in the file and a flag) and three numbers of 8 bytes for its place in the order of presentation,
so an hour at 30 frames per second takes 5.3 MB. It is taken only where the packets' times can be those of their frames;
everywhere else frames are reached by decoding from the start, and the decoder's own order is the order of presentation.

Frames are numbered in the order of presentation; packets in the order of decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NO_TIME = np.iinfo(np.int64).min
"""The decoding time of a packet that has none."""

LONGEST_STILL_S = 86_400.0
"""No picture stands for longer than a day: times that say so are damaged."""


@dataclass(frozen=True, kw_only=True)
class FrameIndex:
    """The frames that a video shows, in the order of presentation.

    Attributes:
        timestamps_s: float64 ``[n]``, presentation times counted from the first frame, rising.
        is_keyframe: bool ``[n]``; all False where only decoding would tell.
        last_s: how long the last frame stands, in seconds; 0 where nothing tells.
        in_order: why the frames can be reached only by decoding from the start, in words; None where packets tell
            their frames apart.
        timed: False where the times are an even spacing that stands in for what only decoding tells.
    """

    timestamps_s: NDArray[np.float64]
    is_keyframe: NDArray[np.bool_]
    last_s: float = 0.0
    in_order: str | None = None
    timed: bool = True

    @property
    def num_frames(self) -> int:
        """Frames that are shown, n."""
        return len(self.timestamps_s)

    def numbers_like(self, other: FrameIndex) -> bool:
        """Whether frames have the same numbers by ``other``, and are reached in the same way."""
        return self.num_frames == other.num_frames and (self.in_order is None) == (other.in_order is None)

    @property
    def keyframes(self) -> NDArray[np.int64]:
        """int64 ``[K]``, the frames that decoding can start from; none where it must start at the first frame."""
        return np.flatnonzero(self.is_keyframe) if self.in_order is None else np.empty(0, np.int64)

    def duration_s(self, fps: float | None) -> float:
        """Seconds from the start of the first frame to the end of the last.

        Args:
            fps: the frame rate that the container tells, for a last frame of which nothing tells how long it stands.
        """
        span_s = float(self.timestamps_s[-1])
        if self.last_s > 0:
            return span_s + self.last_s
        if self.num_frames > 1 and span_s > 0:
            return span_s + span_s / (self.num_frames - 1)
        return span_s + 1 / (fps or 25.0)


@dataclass(frozen=True, kw_only=True)
class PacketIndex(FrameIndex):
    """An index whose frames can each be reached from the keyframe before it.

    Attributes:
        pts: int64 ``[P]``, presentation times in units of the stream's time base.
        dts: int64 ``[P]``, decoding times; :data:`NO_TIME` where there is none.
        is_key: bool ``[P]``.
        byte: int64 ``[P]``, where each packet lies in the file; below 0 where nothing tells.
        shown: int64 ``[n]``, the packet of each frame, in the order of presentation.
        seconds_per_tick: the stream's time base.
        suspicious: True where a codec that reorders its pictures comes with times that do not: the order of each group
            must then be proved by decoding all of it.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    byte: NDArray[np.int64]
    shown: NDArray[np.int64]
    seconds_per_tick: float
    suspicious: bool = False

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
    def keys(self) -> NDArray[np.int64]:
        """The packets that are keyframes, in the order of decoding."""
        return np.flatnonzero(self.is_key)

    def holds(self, place: int, packet: Any) -> bool:
        """Whether ``packet`` is the one that the index has at ``place``: of the same time, from the same place."""
        told = int(self.byte[place])
        same_place = told < 0 or packet.pos is None or packet.pos < 0 or packet.pos == told
        return bool(packet.pts == self.pts[place]) and same_place

    def start_packet(self, packet: int) -> int:
        """The packet to start decoding from for ``packet``'s frame.

        The last keyframe that is decoded no later and shown no later: pictures that follow a keyframe in the file but
        are shown before it (an open group of pictures) need the group before.
        """
        place = int(np.searchsorted(self.keys, packet, side="right")) - 1
        while place > 0 and self.pts[self.keys[place]] > self.pts[packet]:
            place -= 1
        return int(self.keys[max(place, 0)])

    def earlier_start(self, start: int) -> int | None:
        """The keyframe packet before the keyframe packet ``start``; None where it is the first."""
        place = int(np.searchsorted(self.keys, start)) - 1
        return int(self.keys[place]) if place >= 0 else None

    def frame_at(self, pts: int) -> int:
        """The number of the first frame that is shown at ``pts`` or later."""
        return int(np.searchsorted(self.pts[self.shown], pts))


def plausible_s(stands_s: float) -> float:
    """How long a last frame stands, in seconds; 0 (nothing tells) where that cannot be."""
    return stands_s if 0 < stands_s <= LONGEST_STILL_S else 0.0
