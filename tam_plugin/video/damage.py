"""Damage: which decoded frames are whole, by what libav says while it decodes.

libav conceals what it cannot decode and marks the picture; pictures predicted from a damaged one are not marked, though
they show the damage too. So every picture that is decoded behind a mark, a corrupt packet or a packet that cannot be
decoded, up to the next keyframe, counts as damaged. A changed bit that no decoder notices cannot be known: such a
picture is what players show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tam_plugin.video.index import PacketIndex


class PacketDamage:
    """The damage in a group of pictures that is reached by an index: packets tell what depends on what.

    Args:
        index: the file's index.
        start: the keyframe packet that decoding starts from.
        delay: packets by which a decoder of several threads may be late to say that it failed.
    """

    def __init__(self, index: PacketIndex, start: int, delay: int) -> None:
        self._index = index
        self._start = start
        self._delay = delay if delay > 1 else 0
        self._hurt: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._hurt)

    def failed(self, place: int) -> None:
        """Note that packet ``place`` is corrupt or was refused by the decoder."""
        self._hurt.append(max(self._start, place - self._delay))

    def came_out(self, frame: Any) -> None:
        """Look at a frame that came out of the decoder."""
        if frame.is_corrupt and frame.pts is not None and frame.pts >= self._index.pts[self._start]:
            place = self._index.place_of(frame.pts)
            self._hurt.append(self._start if place is None else place)
        # pictures before the keyframe, whose references were not decoded, are nobody's wish

    def around(self, pts: int, *, missing: bool) -> tuple[int, int] | None:
        """The frames [since, until) that are damaged together with the one shown at ``pts``; None where it is whole.

        Args:
            pts: the time of a frame of the group.
            missing: whether it did not come out at all.
        """
        place = self._index.place_of(pts)
        if place is None or (not self._hurt and not missing):
            return None
        keys = self._index.keys
        following = int(np.searchsorted(keys, place, side="right"))
        first = int(keys[following - 1]) if following else 0
        end = int(keys[following]) if following < len(keys) else len(self._index.pts)
        since = min((hurt for hurt in self._hurt if first <= hurt <= place), default=place if missing else None)
        if since is None:
            return None
        times = self._index.pts[since:end]
        return self._index.frame_at(int(times.min())), self._index.frame_at(int(times.max())) + 1


def whole_in_order(decoded: Iterable[tuple[Any | None, bool]]) -> Iterator[tuple[Any, bool]]:
    """Frames in the order of presentation, and whether each is whole.

    Pictures that are shown before a damaged one may be predicted from it, if they are of the kind (B) that is decoded
    later than it is shown; so these are held back until the picture after them is known.

    Args:
        decoded: what came out of the decoder, and whether something is wrong with it; None for what did not come out.
    """
    damaged = False
    held: list[tuple[Any, bool]] = []
    for frame, wrong in decoded:
        if frame is None:
            damaged = True
            continue
        if wrong:
            damaged = True
        elif frame.key_frame:
            damaged = False
        if _is_b(frame) and len(held) < _MOST_HELD:
            held.append((frame, not damaged))
            continue
        yield from ((one, whole and not damaged) for one, whole in held)
        held.clear()
        yield frame, not damaged
    yield from held


_MOST_HELD = 16
"""Pictures between two references, at most, in any codec."""


def _is_b(frame: Any) -> bool:
    return getattr(frame.pict_type, "name", "") == "B"
