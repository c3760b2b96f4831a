"""Output sizes, and the settings of libav's scaler."""

from __future__ import annotations

from typing import Any

from tam_plugin.errors import InputError

_BT601 = 5
"""libav's number of ITU-R BT.601 among the scaler's colour matrices."""

NATIVE_SIZE_LIMIT = 1920
"""Maximum pixels of either side that frames are decoded at: on every host, in training as in answering.

The encoders see 384 × 384. Up to this limit frames reach them with exactly the pixels of the hosts' own decoding;
beyond it the decoder scales, which takes 120 frames of 3840 × 2160 from 3.0 GB of memory to 1.3.
"""

_LIMITED, _FULL = 1, 2
"""libav's numbers of the colour ranges: 16–235, and 0–255."""


def output_size(size: int | tuple[int, int] | None, width: int, height: int) -> tuple[int, int]:
    """(width, height) that frames of ``width`` × ``height`` come out at.

    Each side is held to ``size`` by itself, whatever the aspect ratio, as the encoder's square resize would do anyway;
    nothing is enlarged. So ``size=384`` gives exactly what a 384 × 384 encoder takes for every video that is not
    smaller than that, and the frames need no second resize.

    Args:
        size: the most pixels of either side, or of (width, height) as displayed; None for the native size.
        width: native, as displayed.
        height: native, as displayed.

    Raises:
        InputError: ``size`` is neither None, nor a whole number >= 1, nor two of them.
    """
    if size is None:
        return width, height
    limits = size if isinstance(size, tuple) else (size, size)
    whole = all(isinstance(side, int) and not isinstance(side, bool) and side >= 1 for side in limits)
    if len(limits) != 2 or not whole:
        raise InputError(f"size = {size!r}: expected None, a whole number of pixels >= 1, or (width, height)")
    return min(width, limits[0]), min(height, limits[1])


def scaling_flags() -> Any:
    """Bicubic with full-resolution chroma: the closest of libav's scalers to the encoder's own bicubic resize."""
    from av.video.reformatter import Interpolation

    return Interpolation.BICUBIC


def conversion_settings(frame: Any) -> dict[str, Any]:
    """Settings, by PyAV's version, with which it converts an ``av.VideoFrame`` to RGB as libav itself would.

    From 17 on, the scaler would start threads of its own. Before, it took a picture's colour matrix and range into
    account only where the result was said to have others: BT.709 came out as if it were BT.601.
    """
    import av

    if int(av.__version__.split(".")[0]) >= 17:
        return {"threads": 1}
    return {"dst_colorspace": _BT601, "src_color_range": _FULL if frame.color_range == _FULL else _LIMITED}
