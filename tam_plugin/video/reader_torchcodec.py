"""The torchcodec reader; torchcodec is optional and loads only beside the libav versions it was built for."""

from __future__ import annotations

from typing import Any

from tam_plugin.errors import InputError, require
from tam_plugin.video.container import one_line
from tam_plugin.video.reader import ReadRequest, other_count

_BATCH = 8
"""Frames a call, so that few are held besides the output."""


def require_torchcodec() -> Any:
    """``torchcodec.decoders.VideoDecoder``.

    Raises:
        MissingDependencyError: torchcodec is not installed, or does not load.
    """
    return require("torchcodec.decoders", needed_for="video backend 'torchcodec'").VideoDecoder


def read(request: ReadRequest) -> None:
    """Fill ``request.out``; see :class:`tam_plugin.video.reader.Reader`. It turns frames upright by itself."""
    decoder_class = require_torchcodec()
    indices = request.indices.tolist()
    height, width = request.out.shape[1:3]
    options: dict[str, Any] = {"dimension_order": "NHWC", "num_ffmpeg_threads": request.num_threads}
    if request.scales:
        from torchcodec.transforms import Resize

        options["transforms"] = [Resize((height, width))]
    try:
        decoder = decoder_class(request.path, **options)
        if len(decoder) != request.index.num_frames:
            raise other_count("torchcodec", len(decoder), request)
        for start in range(0, len(indices), _BATCH):
            batch = decoder.get_frames_at(indices[start : start + _BATCH]).data.numpy()
            request.out[start : start + len(batch)] = batch
    except (RuntimeError, IndexError) as error:
        raise InputError(
            f"video {one_line(request.path)}: torchcodec cannot read it ({one_line(error)}); try backend 'pyav'"
        ) from error
