"""Which frames to take: uniform places, as the host takes them, and their snapping to keyframes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def uniform_indices(num_video_frames: int, num_frames: int) -> NDArray[np.int64]:
    """Places of ``num_frames`` frames spread over a video, first and last included; all of them if it has fewer.

    The same as the host's ``np.linspace(0, n - 1, T, dtype=int)``, but never a frame twice.

    Args:
        num_video_frames: frames that the video has, n.
        num_frames: frames wanted, T.

    Returns:
        int64 ``[min(T, n)]``, strictly increasing.

    Raises:
        InputError: either is not a whole number >= 1.
    """
    for name, value in (("num_video_frames", num_video_frames), ("num_frames", num_frames)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InputError(f"{name} = {value!r}: expected a whole number >= 1")
    return np.linspace(0, num_video_frames - 1, min(num_frames, num_video_frames), dtype=np.int64)


def snap_indices(
    indices: NDArray[np.int64], timestamps_s: NDArray[np.float64], is_keyframe: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Move each sample to the nearest keyframe within half the sampling interval; the others stay.

    A sample may move up to half the mean interval, and never past the middle between it and its neighbour (the middle
    itself belongs to the earlier sample), so no two samples meet: the result is strictly increasing like the input.

    Args:
        indices: int64 ``[T]``, strictly increasing places in the order of presentation.
        timestamps_s: float64 ``[n]``, the presentation time of every frame, strictly increasing.
        is_keyframe: bool ``[n]``.

    Returns:
        int64 ``[T]``.
    """
    keys = np.flatnonzero(is_keyframe)
    if len(indices) < 2 or len(keys) == 0:
        return indices.copy()
    times, key_times = timestamps_s[indices], timestamps_s[keys]
    after = np.searchsorted(key_times, times).clip(0, len(keys) - 1)
    before = (after - 1).clip(0)
    nearer_before = np.abs(times - key_times[before]) <= np.abs(key_times[after] - times)
    nearest = np.where(nearer_before, before, after)
    middles = (times[1:] + times[:-1]) / 2
    low, high = np.concatenate([[-np.inf], middles]), np.concatenate([middles, [np.inf]])
    found = key_times[nearest]
    half = (times[-1] - times[0]) / (len(times) - 1) / 2
    near = (np.abs(found - times) <= half) & (found > low) & (found <= high)
    return np.where(near, keys[nearest], indices)
