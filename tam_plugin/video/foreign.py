"""Readers of other libraries, checked: on some files decord and torchcodec return frames other than those requested,
and neither says which frames are damaged.

So PyAV reads the same frames first (it proves them, and knows damage), and each picture of the other library must be
PyAV's. Where one is not, the library is not used for that file. This costs PyAV's time on top; these readers are there
to get exactly the pixels of a library that a host uses, and to check one decoder against another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tam_plugin.video.reading import ReadRequest

_BLOCKS = 16
"""Pictures are compared by the means of so many blocks per side."""

_NATIVE_LIMITS, _SCALED_LIMITS = (0.5, 4.0), (12.0, 48.0)
"""The largest mean difference, and the largest difference of a block's mean, in grey levels of 255: decoders are exact,
so only the conversion to RGB may round differently at the native size; scalers differ more."""


def take_checked(request: ReadRequest, backend: str, start: int, pictures: NDArray[np.uint8], exempt: set[int]) -> None:
    """Put a batch of another library's pictures over PyAV's, if they are the same ones.

    Args:
        request: what was asked for; ``request.out`` holds PyAV's pictures.
        backend: the name of the library.
        start: the row of the first picture.
        pictures: uint8 ``[B, H, W, 3]``, upright, of the size of ``request.out``.
        exempt: rows that are known to be damaged, where libraries conceal in different ways.

    Raises:
        InputError: a picture is another one than PyAV's.
    """
    rows = range(start, start + len(pictures))
    for row, picture in zip(rows, pictures, strict=True):
        if row not in exempt and not _same(picture, request.out[row], scaled=request.scales):
            raise InputError(
                f"video {one_line(request.path)}: {backend} returns a different picture than libav for frame "
                f"{request.indices[row]}; use backend 'pyav', which reads this file"
            )
    request.out[start : start + len(pictures)] = pictures


def _same(picture: NDArray[np.uint8], expected: NDArray[np.uint8], *, scaled: bool) -> bool:
    mean_limit, block_limit = _SCALED_LIMITS if scaled else _NATIVE_LIMITS
    if picture.shape != expected.shape:
        return False
    if np.array_equal(picture, expected):
        return True
    difference = np.abs(picture.astype(np.int16) - expected)
    if float(difference.mean()) > mean_limit:
        return False
    return float(np.abs(_block_means(picture) - _block_means(expected)).max()) <= block_limit


def _block_means(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    from PIL import Image

    small = Image.fromarray(picture).resize((_BLOCKS, _BLOCKS), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def cannot_read(request: ReadRequest, backend: str, reason: object) -> InputError:
    """The error for a library that fails on a file that PyAV reads."""
    return InputError(
        f"video {one_line(request.path)}: {backend} cannot read it ({one_line(reason)}); "
        f"use backend 'pyav', which reads this file"
    )
