"""Images as frames: those of a directory in natural order, each read with Pillow. Transparency is ignored, as the hosts
ignore it."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line

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


@contextmanager
def whole_images_only() -> Iterator[None]:
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


def image_size(path: str) -> tuple[int, int]:
    """(width, height) of the image at ``path`` as displayed.

    Raises:
        InputError: it cannot be read.
    """
    with _opened(path) as image:
        return _upright_size(image)


def _upright_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SWAPS_SIDES else (width, height)


class ImageRead(NamedTuple):
    """What was noticed when an image was read: whether it holds several pictures, and what it took as white."""

    several: bool
    float_white: float | None


def read_image(path: str, size: tuple[int, int], float_white: float | None) -> tuple[NDArray[np.uint8], ImageRead]:
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
    return picture, ImageRead(several, float_white)


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
