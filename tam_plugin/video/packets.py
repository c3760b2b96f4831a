"""From a table of packets to a frame index: whether what demuxing tells can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.video.index import LONGEST_STILL_S, NO_TIME, FrameIndex, PacketIndex, plausible_s

if TYPE_CHECKING:
    from numpy.typing import NDArray

DEEPEST_REORDERING = 32
"""Places that a frame may move between decoding and presentation: no codec holds back more than 16."""

_JUMP_S = 10.0
"""A jump ahead by more than this is such a joint, as for ffmpeg."""


@dataclass(frozen=True, kw_only=True)
class PacketTable:
    """What the packets of a video stream tell, in the order of decoding.

    Attributes:
        pts: int64 ``[P]``; dts: int64 ``[P]``; both :data:`NO_TIME` where there is none.
        is_key: bool ``[P]``.
        hidden: bool ``[P]``, decoded but not shown (an edit list is at work).
        duration: int64 ``[P]``, ticks that each frame stands; 0 where nothing tells.
        byte: int64 ``[P]``, where each packet lies in the file; below 0 where nothing tells.
        seconds_per_tick: the stream's time base.
        reorders: whether the codec says that it shows pictures in another order than it decodes them.
        restarts: whether the format's times may jump ahead where recordings were joined.
        told_end_s: when the last frame ends, on the clock of ``pts``, where the container tells it better than the last
            packet does; else minus infinity.
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    is_key: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    duration: NDArray[np.int64]
    byte: NDArray[np.int64]
    seconds_per_tick: float
    reorders: bool
    restarts: bool
    told_end_s: float = -math.inf


def doubtful_start(table: PacketTable) -> bool:
    """Whether only decoding tells which frame is the first.

    It does where packets come before the first one marked as a keyframe, and where frames are shown before the first
    keyframe although they are decoded after it: a stream that was cut into may hold nothing that they are predicted
    from, and players then do not show them.
    """
    keys = np.flatnonzero(table.is_key)
    return bool(len(keys)) and bool((~table.hidden[: keys[0]]).any() or len(leading_packets(table, int(keys[0]))))


def leading_packets(table: PacketTable, key: int) -> NDArray[np.int64]:
    """The packets that are decoded after the keyframe ``key`` and shown before it."""
    later = np.flatnonzero(table.is_key[key + 1 :])
    group = np.arange(key, key + 1 + later[0] if len(later) else len(table.pts))
    timed = (table.pts[group] != NO_TIME) & ~table.hidden[group]
    return group[(table.pts[group] < table.pts[key]) & timed]


def reorders(stream: Any) -> bool:
    """Whether the codec of ``stream`` shows pictures in another order than it decodes them, as far as it tells."""
    return bool(stream.codec_context.has_b_frames)


def index_of(table: PacketTable) -> FrameIndex:
    """The index that packets tell: a :class:`PacketIndex` where their times can be those of their frames.

    They cannot where some packet has no time, two frames have the same, decoding times fall or jump (recordings that
    were joined), or frames move further than any codec moves them. The times of joined recordings follow each other.
    """
    visible = np.flatnonzero(~table.hidden)
    if table.is_key.any():
        # pictures before the first keyframe (a stream that was cut into) cannot be decoded
        visible = visible[visible >= np.flatnonzero(table.is_key)[0]]
    if len(visible) == 0:
        visible = np.arange(len(table.pts))
    if not table.is_key.any() or (table.pts[visible] == NO_TIME).any():
        return _untimed(len(visible), "its packets do not tell when their frames are shown")
    ends = _joints(table, visible)
    if ends is not None and len(ends) > 1:
        return _joined(table, visible, ends)
    order = np.argsort(table.pts[visible], kind="stable")
    doubt = _doubt(table, visible, order) if ends is not None else "the time of one frame does not fit its neighbours'"
    if doubt is not None:
        return _untimed(len(visible), doubt)
    shown = visible[order]
    pts = table.pts[shown]
    stands_s = max(0, int(table.duration[shown[-1]])) * table.seconds_per_tick
    return PacketIndex(
        timestamps_s=(pts - pts[0]) * table.seconds_per_tick,
        is_keyframe=table.is_key[shown],
        last_s=plausible_s(max(stands_s, table.told_end_s - float(pts[-1]) * table.seconds_per_tick)),
        pts=table.pts,
        dts=table.dts,
        is_key=table.is_key,
        byte=table.byte,
        shown=shown,
        seconds_per_tick=table.seconds_per_tick,
        suspicious=table.reorders and bool((order == np.arange(len(order))).all()),
    )


def _doubt(table: PacketTable, visible: NDArray[np.int64], order: NDArray[np.int64]) -> str | None:
    """Why the times of ``visible`` packets cannot be those of their frames, in words; None where they can."""
    pts = table.pts[visible][order]
    if (np.diff(pts) == 0).any():
        return "two of its frames have the same presentation time"
    # as whole numbers, absurd times would overflow
    if (np.diff(pts.astype(np.float64)) * table.seconds_per_tick > LONGEST_STILL_S).any():
        return "one of its frames claims to last for days"
    moved = np.abs(order - np.arange(len(order)))
    if moved.max() > DEEPEST_REORDERING or (moved.any() and not table.reorders):
        return "its times put frames in an order that its codec does not have"
    return None


def _untimed(num_frames: int, reason: str) -> FrameIndex:
    return FrameIndex(
        timestamps_s=np.arange(num_frames, dtype=np.float64),
        is_keyframe=np.zeros(num_frames, np.bool_),
        in_order=reason,
        timed=False,
    )


def _joints(table: PacketTable, visible: NDArray[np.int64]) -> list[int] | None:
    """Where in ``visible`` each recording of a joined file ends: one end where the times are of one piece.

    None where a single time lies apart from neighbours that agree, which is no joint but damage.
    """
    dts = table.dts[visible]
    known = np.flatnonzero(dts != NO_TIME)
    found = dts[known]
    steps = np.diff(found) * table.seconds_per_tick
    breaks = steps < 0
    astray = (breaks[:-1] != breaks[1:]) & (found[2:] >= found[:-2])
    if astray.any():
        return None
    if table.restarts:
        breaks |= steps > _JUMP_S
    return [*known[1:][breaks].tolist(), len(visible)]


def _joined(table: PacketTable, visible: NDArray[np.int64], ends: list[int]) -> FrameIndex:
    """The frames of joined recordings: each keeps its own times, and starts where the decoding of the one before ends.

    That is how ffmpeg joins them. Frames that a cut left behind the end of their recording are moved before it.
    """
    times: list[NDArray[np.float64]] = []
    at_s, start = 0.0, 0
    for end in ends:
        part = visible[start:end]
        pts = np.sort(table.pts[part])
        own_s = (pts - pts[0]) * table.seconds_per_tick
        length_s = _decoding_length_s(table, part)
        late = int(np.searchsorted(own_s, length_s))
        if 0 < late < len(own_s):
            own_s[late:] = np.linspace(own_s[late - 1], length_s, len(own_s) - late + 2)[1:-1]
        times.append(at_s + own_s)
        last_s = length_s - float(own_s[-1])
        at_s += length_s
        start = end
    timestamps_s = np.concatenate(times)
    return FrameIndex(
        timestamps_s=timestamps_s,
        is_keyframe=np.zeros(len(timestamps_s), np.bool_),
        last_s=plausible_s(last_s),
        in_order=f"its timestamps start again {len(ends) - 1} time{'s' if len(ends) > 2 else ''}",
        timed=bool((np.diff(timestamps_s) > 0).all()),
    )


def _decoding_length_s(table: PacketTable, part: NDArray[np.int64]) -> float:
    """Seconds from the first decoding time of ``part`` to the end of its last."""
    dts = table.dts[part]
    dts = dts[dts != NO_TIME]
    span = int(dts[-1] - dts[0])
    stands = int(table.duration[part[-1]]) or (span // (len(dts) - 1) if len(dts) > 1 else 1)
    return (span + max(1, stands)) * table.seconds_per_tick
