"""The packets of an open file from any place on, by its index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tam_plugin.video.container import OpenContainer
    from tam_plugin.video.index import PacketIndex

_SEEK_EARLIER_S = (0.5, 2.0, 8.0, 32.0)
"""How much earlier to seek, in turn, where a container's seek lands behind the keyframe asked for."""


class PacketCursor:
    """Reads packets of a stream from any place on, seeking only where reading on would take longer.

    Args:
        opened: the file; it may stand anywhere.
        index: its packets.
        read_on_packets: a place that lies at most so many packets ahead is reached by reading on.
    """

    def __init__(self, opened: OpenContainer, index: PacketIndex, *, read_on_packets: int) -> None:
        self.index = index
        self.codec = opened.stream.codec_context
        self._opened = opened
        self._read_on_packets = read_on_packets
        self._next: int | None = 0 if opened.at_start else None
        self._packets: Iterator[Any] = opened.packets()

    def packets(self, start: int, last: int) -> Iterator[tuple[int, Any]]:
        """Packets [start, last] with their places, in the order of decoding; fewer where the file ends or ``start`` is
        not found."""
        if self._next is None or not 0 <= start - self._next <= self._read_on_packets:
            self._seek(start, 0.0)
        packet = self._find(start)
        for earlier_s in _SEEK_EARLIER_S:
            if packet is not None:
                break
            self._seek(start, earlier_s)
            packet = self._find(start)
        place = start
        while packet is not None:
            self._next = place + 1
            yield place, packet
            if place == last:
                return
            place += 1
            packet = next(self._packets, None)

    def _find(self, start: int) -> Any | None:
        """Read on until packet ``start``; None if the place read from is already past it."""
        for packet in self._packets:
            place = self.index.place_of(packet.pts)
            if place == start:
                return packet
            if place is not None and place > start:
                return None
        return None

    def _seek(self, start: int, earlier_s: float) -> None:
        ticks = int(self.index.pts[start]) - round(earlier_s / self.index.seconds_per_tick)
        self._opened.seek(ticks)
        self._packets = self._opened.packets()
