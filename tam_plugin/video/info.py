"""VideoInfo and SampledVideo: what is known of a video, and the frames taken from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DAMAGED = 0.25
"""The share of the frames asked for that may be damaged before a video is refused."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What is known of a video (or of a directory of images) before its frames are taken.

    Attributes:
        path: the file or directory, as given.
        duration_s: seconds from the start of the first frame to the end of the last.
        fps: average frames per second, as the container tells it; worked out from the timestamps where it does not.
        num_frames: frames that are shown (those that an edit list hides do not count).
        width: pixels, as displayed: after rotation.
        height: pixels, as displayed: after rotation.
        codec: libav's name of the codec, such as ``"h264"``; ``"images"`` for a directory.
        rotation: degrees counter-clockwise that the stored pictures are turned by to stand upright: 0, 90, 180 or 270.
        mirrored: whether they are also mirrored left to right after the turn.
        counted: True where ``num_frames`` was counted from packets or frames, False where the header told it.
    """

    path: str
    duration_s: float
    fps: float
    num_frames: int
    width: int
    height: int
    codec: str
    rotation: int = 0
    mirrored: bool = False
    counted: bool = False


@dataclass(frozen=True, kw_only=True)
class SampledVideo:
    """Frames of a video in order of presentation.

    Attributes:
        frames: uint8 ``[T, H, W, 3]``, RGB, C-contiguous, upright.
        timestamps_s: float64 ``[T]``, the presentation time of each frame counted from the video's first frame. At a
            constant frame rate it equals the host's ``frame_index / fps``; at a variable one it is the true time.
        indices: int64 ``[T]``, each frame's place in the order of presentation, strictly increasing.
        info: the video.
        backend: the reader that decoded the frames: ``"pyav"``, ``"decord"``, ``"torchcodec"`` or ``"images"``.
        sampler: how the frames were chosen: the name of the sampler (``"uniform"``, ``"keyframe"``, ...), or
            ``"indices"`` where the caller named the frames.
        snapped: frames that the sampler ``"keyframe"`` moved from their uniform place to a keyframe.
        damaged_frames: the frames (their places in the order of presentation) that were wanted and are damaged. Each
            was replaced by the nearest whole frame of its sampling interval, whose place and time stand in ``indices``
            and ``timestamps_s``; where the interval has none, the damaged picture is shown as players show it (its
            place is then in ``indices`` too), or left out where nothing of it can be decoded.
    """

    frames: NDArray[np.uint8] = field(repr=False)
    timestamps_s: NDArray[np.float64] = field(repr=False)
    indices: NDArray[np.int64] = field(repr=False)
    info: VideoInfo
    backend: str
    sampler: str = "uniform"
    snapped: int = 0
    damaged_frames: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.frames)
