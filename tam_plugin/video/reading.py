"""What readers are asked for and what they give back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tam_plugin.video.index import FrameIndex
    from tam_plugin.video.orientation import Orientation
    from tam_plugin.video.pool import ContainerPool


@dataclass(frozen=True, kw_only=True)
class ReadRequest:
    """What a reader is asked for.

    Attributes:
        path: the file.
        containers: its open containers.
        stream: the number of its video stream.
        codec: libav's name of the codec.
        index: its frame index.
        orientation: the turn that makes its pictures upright.
        indices: int64 ``[T]``, frames wanted, in the order of presentation, strictly increasing.
        native_size: (width, height) of the pictures as stored, before they are turned.
        out: uint8 ``[T, H, W, 3]``, C-contiguous: upright frames go here; where H and W are not the native ones, the
            reader scales.
        num_threads: threads that may decode at a time.
    """

    path: str
    containers: ContainerPool
    stream: int
    codec: str
    index: FrameIndex
    orientation: Orientation
    indices: NDArray[np.int64]
    native_size: tuple[int, int]
    out: NDArray[np.uint8]
    num_threads: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the pictures wanted, before they are turned."""
        height, width = self.out.shape[1:3]
        return (height, width) if self.orientation.swaps_sides else (width, height)

    @property
    def scales(self) -> bool:
        """Whether the pictures wanted are not of the size they are stored in."""
        return self.stored_size != self.native_size


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How frames are read, whichever they are.

    Attributes:
        backend: the reader, by its own name (``"auto"`` is none).
        size: the most pixels of either side, or of (width, height) as displayed; None for the native size.
        num_threads: threads that may decode at a time.
        max_damaged: the share of the frames asked for that may be damaged.
    """

    backend: str
    size: int | tuple[int, int] | None
    num_threads: int
    max_damaged: float


NOT_READ = -1
"""The place of a row of which no picture could be decoded at all."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a reader did.

    Attributes:
        index: the index that the frames are numbered by. Where it has another number of frames than the request's, the
            frames taken are not the ones wanted, and the request must be made again by this one.
        shown: int64 ``[T]``, the frame that stands in each row: the one wanted, or the whole frame that replaces a
            damaged one, or :data:`NOT_READ`.
        damaged: rows whose wanted frame is damaged.
    """

    index: FrameIndex
    shown: NDArray[np.int64]
    damaged: tuple[int, ...] = ()


class IndexBrokenError(Exception):
    """What came out of the decoder does not fit the index; the message says what did not hold."""


def sampling_intervals(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last frame of each sample's interval, int64 ``[T]`` each: they meet halfway between samples.

    The middle itself belongs to the earlier sample, as in snapping. Before the first and behind the last sample the
    interval reaches as far as on its other side; a single sample has the whole video.
    """
    import numpy as np

    if len(indices) == 1:
        return np.zeros(1, np.int64), np.full(1, np.iinfo(np.int64).max)
    middles = (indices[1:] + indices[:-1]) // 2
    first = max(0, 2 * int(indices[0]) - int(middles[0]))
    last = 2 * int(indices[-1]) - int(middles[-1])
    return np.concatenate([[first], middles + 1]), np.concatenate([middles, [last]])
