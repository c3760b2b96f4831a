"""A directory of images as a source of frames: natural order, one frame per image.

The images may differ in size: the first one's is the video's, and the others are resized to it, without regard to their
aspect ratio, as the encoder's square resize would do anyway.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.video.container import one_line
from tam_plugin.video.images import ImageRead, image_size, list_images, read_image, whole_images_only
from tam_plugin.video.index import FrameIndex
from tam_plugin.video.info import SampledVideo, VideoInfo
from tam_plugin.video.samplers import INDICES
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tam_plugin.video.reading import ReadOptions


class ImageFolder:
    """A directory of images as a video of ``image_fps`` frames per second.

    ``info.width`` and ``info.height`` are those of the first image. Images of more than 8 bits per channel are scaled
    to 8. Of an image that holds several pictures (an animation, a TIFF of several pages) the first is taken, with a
    notice.

    Args:
        directory: the directory.
        image_fps: frames per second.

    Attributes:
        index: the frames; decoding can start at each of them.

    Raises:
        InputError: it has no images, the first cannot be read, or ``image_fps`` is not a number above 0.
    """

    def __init__(self, directory: str, image_fps: float) -> None:
        self._directory = directory
        self._paths = list_images(directory)
        self._info = _info(directory, self._paths, image_fps)
        self.index = FrameIndex(
            timestamps_s=np.arange(len(self._paths)) / float(image_fps),
            is_keyframe=np.ones(len(self._paths), np.bool_),
            last_s=1 / float(image_fps),
        )

    def info(self) -> VideoInfo:
        """What is known of the video."""
        return self._info

    def read(self, indices: NDArray[np.int64], index: FrameIndex, options: ReadOptions) -> SampledVideo:
        """Read the images at ``indices``, with Pillow whatever ``options.backend`` says; none may be damaged.

        Raises:
            InputError: an image that is wanted cannot be read.
        """
        width, height = output_size(options.size, self._info.width, self._info.height)
        frames: NDArray[np.uint8] = np.empty((len(indices), height, width, 3), np.uint8)
        paths = [self._paths[index] for index in indices]

        def read(row: int, float_white: float | None = None) -> ImageRead:
            picture, done = read_image(paths[row], (width, height), float_white)
            frames[row] = picture
            return done

        with whole_images_only(), ThreadPoolExecutor(options.num_threads) as pool:
            done = list(pool.map(read, range(len(paths))))
            # one scale for all: in a video whose white is 255, a dark image may hold nothing above 1
            if {image.float_white for image in done} >= {1.0, 255.0}:
                for row, image in enumerate(done):
                    if image.float_white == 1.0:
                        read(row, 255.0)
        several = [path for path, image in zip(paths, done, strict=True) if image.several]
        _notice_several_pictures(self._directory, several)
        return SampledVideo(
            frames=frames,
            timestamps_s=index.timestamps_s[indices],
            indices=indices,
            info=self._info,
            backend="images",
            sampler=INDICES,
        )

    def close(self) -> None:
        """Nothing is held open."""


def _notice_several_pictures(directory: str, paths: list[str]) -> None:
    if paths:
        warnings.warn(
            f"video {one_line(directory)}: images with several pictures: {len(paths)} (such as "
            f"{one_line(os.path.basename(paths[0]))}); only the first picture of each is used",
            TamNotice,
            stacklevel=_level_of_caller(),
        )


def _info(directory: str, paths: list[str], image_fps: float) -> VideoInfo:
    if isinstance(image_fps, bool) or not isinstance(image_fps, int | float) or not 0 < image_fps < math.inf:
        raise InputError(f"image_fps = {image_fps!r}: expected a number of frames per second above 0")
    width, height = image_size(paths[0])
    return VideoInfo(
        path=directory,
        duration_s=len(paths) / image_fps,
        fps=float(image_fps),
        num_frames=len(paths),
        width=width,
        height=height,
        codec="images",
        counted=True,
    )


def _level_of_caller() -> int:
    """The ``stacklevel`` at which a warning points to the code that called this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("tam_plugin.video"):
        level, frame = level + 1, frame.f_back
    return level
