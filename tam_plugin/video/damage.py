"""Damage: which decoded frames are whole, by what libav says while it decodes.

libav conceals what it cannot decode and marks the picture; pictures predicted from a damaged one are not marked, though
they show the damage too. So everything from a mark, a corrupt packet or a packet that cannot be decoded up to the next
keyframe counts as damaged. A changed bit that no decoder notices cannot be known: such a picture is what players show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Damage:
    """Follows one decoder's packets and frames.

    Attributes:
        now: whether what comes out of the decoder is damaged.
        since: the least presentation time that damage was seen at, in ticks; None where none was seen or timed.
        seen: whether there was any damage at all.
    """

    now: bool = False
    since: int | None = None
    seen: bool = False

    def packet(self, packet: Any) -> None:
        """Note a packet that goes into the decoder: its container may say that it is corrupt."""
        if packet is not None and packet.is_corrupt:
            self._mark(packet.pts)

    def failed(self, packet: Any) -> None:
        """Note a packet that the decoder refused."""
        self._mark(None if packet is None else packet.pts)

    def whole(self, frame: Any) -> bool:
        """Whether a frame that came out of the decoder is whole."""
        if frame.is_corrupt:
            self._mark(frame.pts)
        elif self.now and frame.key_frame:
            self.now = False
        elif self.now:
            self._mark(frame.pts)
        return not self.now

    def _mark(self, pts: int | None) -> None:
        self.now = self.seen = True
        if pts is not None:
            self.since = pts if self.since is None else min(self.since, pts)
