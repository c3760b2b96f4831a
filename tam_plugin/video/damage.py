"""Damage: which decoded frames are whole, by what libav says while it decodes.

libav conceals what it cannot decode and marks the picture; pictures predicted from a damaged one are not marked, though
they show the damage too. So every picture that is decoded behind a mark, a corrupt packet or a packet that cannot be
decoded, up to the next keyframe, counts as damaged. A changed bit that no decoder notices cannot be known: such a
picture is what players show.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.video.reading import IndexBrokenError

if TYPE_CHECKING:
    from tam_plugin.video.index import PacketIndex


class PacketDamage:
    """The damage in a group of pictures that is reached by an index: packets tell what depends on what.

    Args:
        index: the file's index.
        start: the keyframe packet that decoding starts from.
    """

    def __init__(self, index: PacketIndex, start: int) -> None:
        self._index = index
        self._start = start
        self._hurt: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._hurt)

    def failed(self, place: int) -> None:
        """Note that packet ``place`` is corrupt or was refused by the decoder."""
        self._hurt.append(place)

    def came_out(self, frame: Any) -> None:
        """Look at a frame that came out of the decoder.

        Pictures before the keyframe, whose references were not decoded, are never requested.

        Raises:
            IndexBrokenError: the keyframe that decoding started from is not one: what it refers to was not decoded.
        """
        if frame.pts is None or frame.pts < self._index.pts[self._start]:
            return
        if frame.pts == self._index.pts[self._start] and not frame.key_frame and frame_kind(frame) in ("P", "B"):
            raise IndexBrokenError("what is marked as a keyframe is none")
        if frame.is_corrupt:
            place = self._index.place_of(frame.pts)
            self._hurt.append(self._start if place is None else place)

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


class Trouble(Enum):
    """What may be wrong with what comes out of a decoder."""

    MARKED = "libav or the container says that it is corrupt"
    LOST = "nothing came out"


def whole_in_order(decoded: Iterable[tuple[Any | None, Trouble | None]]) -> Iterator[tuple[Any | None, bool]]:
    """Frames in the order of presentation, and whether each is whole; None for a frame that was lost.

    Pictures that are shown before a damaged one may be predicted from it, if they are of the kind (B) that is decoded
    later than it is shown; so these are held back until the picture after them is known. What is lost before the first
    picture is none: a stream that was cut into starts with packets that nothing can decode.

    Args:
        decoded: what came out of the decoder, and what is wrong with it. Without a frame, something is wrong with what
            follows (a mark), or a frame is lost.
    """
    damaged = started = False
    held: list[tuple[Any, bool]] = []
    for frame, trouble in decoded:
        if trouble is not None:
            damaged = True
        elif frame is not None and frame.key_frame:
            damaged = False
        if frame is None and (trouble is Trouble.MARKED or not started):
            continue
        started = True
        if frame is not None and _is_b(frame) and len(held) < _MOST_HELD:
            held.append((frame, not damaged))
            continue
        yield from ((one, whole and not damaged) for one, whole in held)
        held.clear()
        yield frame, not damaged
    yield from held


_MOST_HELD = 16
"""Pictures between two references, at most, in any codec."""


def _is_b(frame: Any) -> bool:
    return frame_kind(frame) == "B"


def frame_kind(frame: Any) -> str:
    """libav's letter for the kind of picture: I, P, B, ...; ``"NONE"`` where the decoder does not tell."""
    kind = frame.pict_type
    name = getattr(kind, "name", None)
    return str(name) if name is not None else _KINDS.get(int(kind), "NONE")


_KINDS = {0: "NONE", 1: "I", 2: "P", 3: "B", 4: "S", 5: "SI", 6: "SP", 7: "BI"}
