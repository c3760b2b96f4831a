"""sample_frames and probe_video: single calls for a video with one question."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tam_plugin.video.info import MAX_DAMAGED
from tam_plugin.video.opened import FrameBudget, open_video
from tam_plugin.video.samplers import KEYFRAME, UNIFORM

if TYPE_CHECKING:
    from tam_plugin.video.info import SampledVideo, VideoInfo


def sample_frames(
    path: str | os.PathLike[str],
    budget: FrameBudget | int,
    backend: str = "auto",
    snap_to_keyframes: bool = False,
    *,
    size: int | tuple[int, int] | None = None,
    num_threads: int | None = None,
    image_fps: float = 1.0,
    max_damaged: float = MAX_DAMAGED,
) -> SampledVideo:
    """Take a budget's frames, uniformly spread over a video, the first and the last frame included.

    For several questions about one video, or to choose its frames in another way, see
    :func:`tam_plugin.video.opened.open_video`.

    Args:
        path: a video file, or a directory of images, which are taken in natural order.
        budget: how many frames; never more are taken than the video has.
        backend: see :meth:`tam_plugin.video.opened.Video.sample`; so are the arguments that are not named here.
        snap_to_keyframes: choose them by the sampler ``"keyframe"``: move each to the nearest keyframe within half the
            sampling interval, where there is one. The timestamps are those of the frames really returned.
        size: the most pixels of either side, or of (width, height).
        num_threads: threads that decode at a time.
        image_fps: frames per second of a directory of images.
        max_damaged: the share of the frames asked for that may be damaged.

    Raises:
        InputError: the file, the budget, the backend's name or the size cannot be used, or the backend asked for cannot
            prove that its frames are the ones wanted; one line says why.
        MissingDependencyError: the package of the backend asked for is not installed.
    """
    with open_video(path, image_fps=image_fps) as video:
        return video.sample(
            budget,
            sampler=KEYFRAME if snap_to_keyframes else UNIFORM,
            backend=backend,
            size=size,
            num_threads=num_threads,
            max_damaged=max_damaged,
        )


def probe_video(path: str | os.PathLike[str], *, image_fps: float = 1.0) -> VideoInfo:
    """What there is to know of a video before its frames are taken; see :attr:`tam_plugin.video.opened.Video.info`.

    Args:
        path: a video file, or a directory of images, which are taken in natural order.
        image_fps: frames per second of a directory of images.

    Raises:
        InputError: there is no such file, or it is no video that can be decoded; one line says why.
    """
    with open_video(path, image_fps=image_fps) as video:
        return video.info
