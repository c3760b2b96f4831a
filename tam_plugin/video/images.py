"""Directories of images as videos: natural order, one frame per image, read with Pillow.

The images may differ in size: the first one's is the video's, and the others are resized to it, without regard to their
aspect ratio, as the encoder's square resize would do anyway. Transparency is ignored, as the hosts ignore it.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.video.container import one_line
from tam_plugin.video.indices import uniform_indices
from tam_plugin.video.info import SampledVideo, VideoInfo
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
"""Formats that a file may hold, whatever its name: among the others are some that run programs (PostScript)."""

MAX_IMAGE_PIXELS = 89_478_485
"""The most pixels that an image may have, from its header, before anything is decoded: the size beyond which Pillow
warns of decompression bombs."""

_EXIF_ORIENTATION = 0x0112
_EXIF_SWAPS_SIDES = frozenset({5, 6, 7, 8})

_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_TIFF_WHITE_IS_ZERO = 0
_TIFF_SIGNED = 2

_PILLOW_SETTINGS = threading.Lock()


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that reads runs of digits as numbers: ``frame_2`` before ``frame_10``."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(0, int(part), "") if place % 2 else (1, 0, part) for place, part in enumerate(parts) if part]


def list_images(directory: str) -> list[str]:
    """The images of ``directory`` in natural order; other files and hidden ones are left out.

    Raises:
        InputError: there is none, or something that is no file (a link to nothing, a directory, a pipe) bears the name
            of one.
    """
    try:
        entries = list(os.scandir(directory))
    except OSError as error:
        raise InputError(f"video {one_line(directory)}: the directory cannot be read ({error.strerror})") from error
    images = [e for e in entries if e.name.lower().endswith(IMAGE_SUFFIXES) and not e.name.startswith(".")]
    if not images:
        raise InputError(
            f"video {one_line(directory)}: a directory without images; expected files named {', '.join(IMAGE_SUFFIXES)}"
        )
    images.sort(key=lambda entry: (natural_key(entry.name), entry.name))
    for entry in images:
        _require_file(entry)
    return [os.path.join(directory, entry.name) for entry in images]


def _require_file(entry: os.DirEntry[str]) -> None:
    """Refuse what is no file: left out, it would be a frame that is silently missing; opened, a pipe would block."""
    try:
        if entry.is_file():
            return
        if entry.is_dir():
            found = "a directory"
        elif entry.is_symlink():
            found = "a link to a file that does not exist"
        else:
            found = "a pipe, a socket or a device"
    except OSError as error:  # a link that leads to itself
        found = error.strerror or type(error).__name__
    raise InputError(
        f"image {one_line(entry.path)}: not a file ({found}); expected an image, or remove it from the directory"
    )


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

    ``info.width`` and ``info.height`` are those of the first image. Images of more than 8 bits per channel are scaled
    to 8. Of an image that holds several pictures (an animation, a TIFF of several pages) the first is taken, with a
    notice.

    Raises:
        InputError: as :func:`probe_images`; or an image that is wanted cannot be read.
    """
    paths = list_images(directory)
    info = _info(directory, paths, image_fps)
    indices = uniform_indices(len(paths), num_frames)
    width, height = output_size(size, info.width, info.height)
    frames: NDArray[np.uint8] = np.empty((len(indices), height, width, 3), np.uint8)

    def read(row: int, float_white: float | None = None) -> _Read:
        picture, done = _read_image(paths[indices[row]], (width, height), float_white)
        frames[row] = picture
        return done

    with _whole_images_only(), ThreadPoolExecutor(num_threads) as pool:
        done = list(pool.map(read, range(len(indices))))
        # one scale for all: in a video whose white is 255, a dark image may hold nothing above 1
        if {image.float_white for image in done} >= {1.0, 255.0}:
            for row, image in enumerate(done):
                if image.float_white == 1.0:
                    read(row, 255.0)
    _notice_several_pictures(directory, [paths[i] for i, image in zip(indices, done, strict=True) if image.several])
    return SampledVideo(
        frames=frames, timestamps_s=indices / float(image_fps), indices=indices, info=info, backend="images"
    )


def _notice_several_pictures(directory: str, paths: list[str]) -> None:
    if paths:
        warnings.warn(
            f"video {one_line(directory)}: images that hold several pictures: {len(paths)} (such as "
            f"{one_line(os.path.basename(paths[0]))}); the first picture of each is taken",
            TamNotice,
            stacklevel=4,
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
def _whole_images_only() -> Iterator[None]:
    """Withdraw, meanwhile, Pillow's process-wide permission to fill up truncated images, which LLaVA-NeXT grants."""
    from PIL import ImageFile

    with _PILLOW_SETTINGS:
        permitted = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = permitted


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The image at ``path``; whatever goes wrong with it inside becomes one line that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_IMAGE_PIXELS:
                raise _too_large(path, f"{width}×{height}")
            if width * height < 1:
                raise ValueError(f"{width}×{height} pixels")
            yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(
            f"image {one_line(path)}: cannot be read; expected a JPEG, PNG, WebP, BMP or TIFF image"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "too many") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
        reason = one_line(error) or type(error).__name__
        raise InputError(f"image {one_line(path)}: cannot be read ({reason}); expected an image") from error


def _too_large(path: str, pixels: str) -> InputError:
    return InputError(
        f"image {one_line(path)}: {pixels} pixels; expected at most {MAX_IMAGE_PIXELS} in all; scale the images down"
    )


def _upright_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SWAPS_SIDES else (width, height)


class _Read(NamedTuple):
    """What was noticed when an image was read: whether it holds several pictures, and what it took as white."""

    several: bool
    float_white: float | None


def _read_image(path: str, size: tuple[int, int], float_white: float | None) -> tuple[NDArray[np.uint8], _Read]:
    """The image at ``path``, uint8 ``[H, W, 3]`` of ``size`` (width, height), upright.

    Args:
        path: the file.
        size: its first picture is resized to it.
        float_white: the value of white in an image of floating-point numbers; None works it out from its values.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        # phones add small companion pictures (MPO), which are not meant to be shown
        several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        upright_size = _upright_size(image)
        if size != upright_size:  # JPEG decodes at 1/2, 1/4 or 1/8 by itself
            image.draft("RGB", size if image.size == upright_size else size[::-1])
        upright = ImageOps.exif_transpose(image)
        if image.mode == "F":
            float_white = float_white or _white_of_floats(path, np.asarray(upright))
            upright = Image.fromarray(_eight_bits_of_floats(np.asarray(upright), float_white, _white_is_zero(image)))
        elif image.mode.startswith("I"):
            upright = Image.fromarray(_eight_bits_of_integers(path, np.asarray(upright), image))
        upright = upright.convert("RGB")
    picture = np.asarray(upright if upright.size == size else upright.resize(size, Image.Resampling.BICUBIC))
    return picture, _Read(several, float_white)


def _eight_bits_of_integers(path: str, values: NDArray[Any], image: Any) -> NDArray[np.uint8]:
    """The upper 8 bits of grey values of 12, 15 or 16 bits, as Pillow reduces 16-bit colour; its conversion of grey
    clips at 255 instead. Images of 32 bits tell no white; they must hold values of 16 bits."""
    stored = (_tiff_tag(image, _TIFF_BITS), _tiff_tag(image, _TIFF_SAMPLE_FORMAT))
    bits = 15 if stored == (16, _TIFF_SIGNED) else min(16, stored[0] or 16)
    white = (1 << bits) - 1
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise InputError(
            f"image {one_line(path)}: grey values from {low} to {high}; expected 0 to {white}; save it with 8 or 16 "
            f"bits per value"
        )
    grey = values >> (bits - 8)
    return (255 - grey if _white_is_zero(image) else grey).astype(np.uint8)


def _white_of_floats(path: str, values: NDArray[Any]) -> float:
    """1 for values from 0 to 1, the convention of TIFF files; 255 for values beyond, as Pillow's own conversion."""
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 255:  # nor is NaN
        raise InputError(
            f"image {one_line(path)}: grey values from {low:g} to {high:g}; expected 0 to 1 or 0 to 255; save it with "
            f"8 or 16 bits per value"
        )
    return 1.0 if high <= 1 else 255.0


def _eight_bits_of_floats(values: NDArray[Any], white: float, white_is_zero: bool) -> NDArray[np.uint8]:
    grey = np.rint(values * (255 / white))
    return (255 - grey if white_is_zero else grey).astype(np.uint8)


def _white_is_zero(image: Any) -> bool:
    """Whether a TIFF image counts from white; Pillow inverts such images of at most 8 bits only."""
    return _tiff_tag(image, _TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO


def _tiff_tag(image: Any, tag: int) -> int | None:
    """The first value of a tag; None where it is missing or the image is no TIFF."""
    value = image.tag_v2.get(tag) if image.format == "TIFF" else None
    return value[0] if isinstance(value, tuple) else value
