"""Directories of images as videos: natural order, one frame an image, read with Pillow."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line
from tam_plugin.video.indices import uniform_indices
from tam_plugin.video.info import SampledVideo, VideoInfo
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_EXIF_ORIENTATION = 0x0112
_EXIF_SWAPS_SIDES = frozenset({5, 6, 7, 8})


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that reads runs of digits as numbers: ``frame_2`` before ``frame_10``."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def list_images(directory: str) -> list[str]:
    """The images of ``directory`` in natural order; other files and hidden ones are left out.

    Raises:
        InputError: there is none.
    """
    try:
        entries = list(os.scandir(directory))
    except OSError as error:
        raise InputError(f"video {one_line(directory)}: the directory cannot be read ({error.strerror})") from error
    # A pipe or a device by the name of an image would block whoever opens it.
    names = [e.name for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES) and e.is_file()]
    names = [name for name in names if not name.startswith(".")]
    if not names:
        raise InputError(
            f"video {one_line(directory)}: a directory without images; expected files named {', '.join(IMAGE_SUFFIXES)}"
        )
    return [os.path.join(directory, name) for name in sorted(names, key=lambda n: (natural_key(n), n))]


def probe_images(directory: str, image_fps: float) -> VideoInfo:
    """A directory of images as a video of ``image_fps`` frames per second.

    Raises:
        InputError: it has no images, the first cannot be read, or ``image_fps`` is not a number above 0.
    """
    paths = list_images(directory)
    return _info(directory, paths, image_fps)


def sample_images(
    directory: str, num_frames: int, *, size: int | tuple[int, int] | None, num_threads: int, image_fps: float
) -> SampledVideo:
    """Frames spread uniformly over a directory of images; see :func:`tam_plugin.video.sampling.sample_frames`.

    Raises:
        InputError: as :func:`probe_images`; or an image that is wanted cannot be read, or has another size.
    """
    paths = list_images(directory)
    info = _info(directory, paths, image_fps)
    indices = uniform_indices(len(paths), num_frames)
    width, height = output_size(size, info.width, info.height)
    frames: NDArray[np.uint8] = np.empty((len(indices), height, width, 3), np.uint8)

    def read(row: int) -> None:
        frames[row] = _read_image(paths[indices[row]], (info.width, info.height), (width, height))

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(read, range(len(indices))))
    return SampledVideo(
        frames=frames, timestamps_s=indices / float(image_fps), indices=indices, info=info, backend="images"
    )


def _info(directory: str, paths: list[str], image_fps: float) -> VideoInfo:
    if isinstance(image_fps, bool) or not isinstance(image_fps, int | float) or not 0 < image_fps < math.inf:
        raise InputError(f"image_fps = {image_fps!r}: expected a number of frames per second above 0")
    with _opened(paths[0]) as image:
        width, height = _upright_size(image)
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


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The image at ``path``; whatever goes wrong with it inside becomes one line that names it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"image {one_line(path)}: cannot be read ({one_line(error)}); expected an image") from error


def _upright_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SWAPS_SIDES else (width, height)


def _read_image(path: str, expected: tuple[int, int], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    with _opened(path) as image:
        found = _upright_size(image)
        if found != expected:
            raise InputError(
                f"image {one_line(path)}: {found[0]}×{found[1]} pixels, but the directory's first image has "
                f"{expected[0]}×{expected[1]}; expected images of one size"
            )
        if size != expected:  # JPEG decodes at 1/2, 1/4 or 1/8 by itself
            image.draft("RGB", size if image.size == expected else size[::-1])
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright if upright.size == size else upright.resize(size, Image.Resampling.BICUBIC))
