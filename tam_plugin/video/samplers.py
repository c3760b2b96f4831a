"""Samplers: how the frames of a video are chosen, by name. Another way of choosing is a function and a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from tam_plugin import addons
from tam_plugin.errors import InputError
from tam_plugin.video.indices import snap_indices, uniform_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tam_plugin.taxonomy import TaskDistribution
    from tam_plugin.video.info import SampledVideo, VideoInfo

UNIFORM, KEYFRAME = "uniform", "keyframe"

INDICES = "indices"
"""What :attr:`SampledVideo.sampler` says where the caller named the frames; no sampler can have this name."""


class VideoView(Protocol):
    """What a sampler may ask of an opened video; see :class:`tam_plugin.video.opened.Video`.

    None of it opens the file or reads its packets again. Whatever is decoded costs time, little at keyframes and at a
    small size.
    """

    @property
    def info(self) -> VideoInfo:
        """Duration, frame rate, number of frames, displayed size."""

    @property
    def num_frames(self) -> int:
        """Frames that the video shows, as far as it is known without decoding."""

    @property
    def timestamps_s(self) -> NDArray[np.float64]:
        """float64 ``[n]``, the presentation time of each frame, counted from the first."""

    @property
    def keyframes(self) -> NDArray[np.int64]:
        """int64 ``[K]``, the frames that are cheap to decode, ascending."""

    def frames_at(
        self,
        indices: Sequence[int] | NDArray[np.integer],
        *,
        backend: str = ...,
        size: int | tuple[int, int] | None = ...,
        num_threads: int | None = ...,
        max_damaged: float = ...,
    ) -> SampledVideo:
        """The frames at ``indices``, with at most ``size`` pixels per side."""


class Sampler(Protocol):
    """Chooses frames. Several threads may use one sampler at the same time, for different videos."""

    @property
    def name(self) -> str:
        """What :attr:`SampledVideo.sampler` says of the frames."""

    def __call__(
        self, video: VideoView, num_frames: int, *, query: str | None, distribution: TaskDistribution | None
    ) -> Sequence[int] | NDArray[np.integer]:
        """The frames to take.

        Called again where decoding finds that the video has other frames than its packets told.

        Args:
            video: the opened video.
            num_frames: how many frames to take, T; the video may have fewer.
            query: the question about the video, if there is one.
            distribution: the question's task type, if it was classified.

        Returns:
            At most T whole numbers, ascending, each once: places in the order of presentation, from 0 to n - 1.
        """


@dataclass(frozen=True)
class UniformSampler:
    """Frames spread uniformly over the video, the first and the last included, as the hosts take them."""

    name: str = UNIFORM

    def __call__(
        self, video: VideoView, num_frames: int, *, query: str | None, distribution: TaskDistribution | None
    ) -> NDArray[np.int64]:
        """See :func:`tam_plugin.video.indices.uniform_indices`."""
        return uniform_indices(video.num_frames, num_frames)


@dataclass(frozen=True)
class KeyframeSampler:
    """Uniform frames, each moved to the nearest keyframe within half the sampling interval: much less to decode.

    Where a file can only be decoded from its start, nothing would be saved, and none is moved.
    """

    name: str = KEYFRAME

    def __call__(
        self, video: VideoView, num_frames: int, *, query: str | None, distribution: TaskDistribution | None
    ) -> NDArray[np.int64]:
        """See :func:`tam_plugin.video.indices.snap_indices`."""
        uniform = uniform_indices(video.num_frames, num_frames)
        keyframes = video.keyframes
        if len(keyframes) == 0:
            return uniform
        is_keyframe = np.zeros(video.num_frames, np.bool_)
        is_keyframe[keyframes] = True
        return snap_indices(uniform, video.timestamps_s, is_keyframe)


_SAMPLERS: dict[str, Sampler] = {UNIFORM: UniformSampler(), KEYFRAME: KeyframeSampler()}


def register_sampler(name: str, sampler: Sampler) -> None:
    """Make ``sampler`` available as ``sampler=name``; registering it again changes nothing.

    Raises:
        InputError: the name is empty or reserved, is not the sampler's own, or another sampler has it.
    """
    if not isinstance(name, str) or not name.isprintable() or not name.strip() or name == INDICES:
        raise InputError(f"sampler name {name!r}: expected a name, other than {INDICES!r}")
    if not callable(sampler) or getattr(sampler, "name", None) != name:
        raise InputError(f"sampler {name!r}: expected something that can be called and whose .name is {name!r}")
    if _SAMPLERS.setdefault(name, sampler) is not sampler:
        raise InputError(f"sampler {name!r}: there is another sampler of this name; choose another name")


def sampler_named(name: str) -> Sampler:
    """The sampler that was registered as ``name``.

    Raises:
        InputError: there is none; the message lists the names.
    """
    sampler = addons.find(_SAMPLERS, name) if isinstance(name, str) else None
    if sampler is None:
        raise InputError(f"sampler {name!r}: expected one of {', '.join(_SAMPLERS)}")
    return sampler


def check_indices(
    indices: Sequence[int] | NDArray[np.integer], num_video_frames: int, *, named_by: str, at_most: int | None = None
) -> NDArray[np.int64]:
    """``indices`` as int64 ``[T]``, if they are frames of a video of ``num_video_frames`` frames, ascending.

    Args:
        indices: what was named.
        num_video_frames: frames that the video has.
        named_by: who named them, for the message.
        at_most: how many frames were asked for, if a number was.

    Raises:
        InputError: they are no whole numbers, none or too many, not ascending, or beyond the video; says which.
    """
    try:
        found = np.asarray(indices)
    except (ValueError, OverflowError):  # rows of different lengths, numbers without bounds
        found = np.empty((), object)
    if found.ndim == 1 and len(found) == 0:
        raise InputError(f"{named_by}: no frame was named; expected at least one")
    if found.ndim != 1 or found.dtype.kind not in "iu":
        kind = f"{found.dtype} {list(found.shape)}"
        raise InputError(f"{named_by}: frame indices of {kind}; expected a list of whole numbers")
    if at_most is not None and len(found) > at_most:
        raise InputError(f"{named_by}: {len(found)} frames were named; expected at most the {at_most} asked for")
    outside = found[(found < 0) | (found >= num_video_frames)]
    if len(outside):
        raise InputError(
            f"{named_by}: frame {outside[0]} was named; the video has {num_video_frames} frames, expected numbers from "
            f"0 to {num_video_frames - 1}"
        )
    found = found.astype(np.int64)
    falls = np.flatnonzero(np.diff(found) <= 0)
    if len(falls):
        before, after = found[falls[0]], found[falls[0] + 1]
        raise InputError(f"{named_by}: frame {after} was named after frame {before}; expected each once, ascending")
    return found
