"""Orientation: the display matrix of a stream, as a quarter turn and a mirroring that make its pictures upright."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """Turn by ``rotation`` degrees counter-clockwise (0, 90, 180, 270), then mirror left to right if ``mirrored``."""

    rotation: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.rotation in (90, 270)

    def apply(self, frame: NDArray[Any]) -> NDArray[Any]:
        """A view of ``frame`` ``[H, W, …]`` that stands upright."""
        upright = np.rot90(frame, self.rotation // 90)
        return upright[:, ::-1] if self.mirrored else upright


UPRIGHT = Orientation()

_QUARTER_TURNS = {(1, 0, 0, 1): 0, (0, 1, -1, 0): 270, (-1, 0, 0, -1): 180, (0, -1, 1, 0): 90}


def orientation_of(frame: Any) -> Orientation:
    """The orientation that the display matrix of a decoded ``av.VideoFrame`` asks for.

    Players turn by quarter turns; a matrix that is no quarter turn (with or without mirroring) is taken as upright,
    as decord takes it.
    """
    try:
        return _from_side_data(frame)
    except ValueError:  # PyAV shows none of it where it has no name for some of it (EXIF in 18.1, say)
        with _NAMELESS_LOCK, _nameless_kinds():
            return _from_side_data(frame)


def _from_side_data(frame: Any) -> Orientation:
    for side_data in frame.side_data:
        if side_data.type.name == "DISPLAYMATRIX" and len(content := bytes(side_data)) >= 36:
            return orientation_of_matrix(struct.unpack("=9i", content[:36]))
    return UPRIGHT


_NAMELESS_LOCK = Lock()


@contextmanager
def _nameless_kinds() -> Iterator[None]:
    """Let PyAV's list of kinds of side data answer for numbers that it does not know, while a frame is looked at."""
    from av.sidedata.sidedata import Type

    def nameless(cls: Any, value: object) -> Any:
        kind = object.__new__(cls)
        kind._name_, kind._value_ = f"UNKNOWN_{value}", value
        return kind

    Type._missing_ = classmethod(nameless)  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del Type._missing_


def orientation_of_matrix(matrix: tuple[int, ...]) -> Orientation:
    """The orientation of a display matrix: nine ints, row by row, of which (a, b, c, d) = [0], [1], [3], [4] turn.

    A stored point (x, y) is shown at (a·x + c·y, b·x + d·y), y downwards.
    """
    a, b, c, d = (
        (value > 0) - (value < 0) if abs(value) > 1 << 12 else 0 for value in (matrix[i] for i in (0, 1, 3, 4))
    )
    if (a, b, c, d) in _QUARTER_TURNS:
        return Orientation(_QUARTER_TURNS[a, b, c, d])
    # mirrored after the turn: the x that is shown has the other sign
    if (-a, b, -c, d) in _QUARTER_TURNS:
        return Orientation(_QUARTER_TURNS[-a, b, -c, d], mirrored=True)
    return UPRIGHT
