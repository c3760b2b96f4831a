"""The decord reader: the host's way, in small batches so that frames are never held twice."""

from __future__ import annotations

from tam_plugin.errors import InputError, require
from tam_plugin.video.container import one_line
from tam_plugin.video.reader import ReadRequest, other_count

_BATCH = 8
"""Frames a call: decord hands out its own copy of each batch."""


def read(request: ReadRequest) -> None:
    """Fill ``request.out``; see :class:`tam_plugin.video.reader.Reader`. decord turns frames upright by itself."""
    decord = require("decord", needed_for="video backend 'decord'", extra="decord")
    decord.logging.set_level(decord.logging.FATAL)
    height, width = request.out.shape[1:3]
    size = {"width": width, "height": height} if request.scales else {}
    indices = request.indices.tolist()
    try:
        video = decord.VideoReader(request.path, ctx=decord.cpu(0), num_threads=request.num_threads, **size)
        if len(video) != request.index.num_frames:
            raise other_count("decord", len(video), request)
        for start in range(0, len(indices), _BATCH):
            batch = video.get_batch(indices[start : start + _BATCH]).asnumpy()
            request.out[start : start + len(batch)] = batch
    except decord.DECORDError as error:
        reason = one_line(error).split(" Stack trace")[0]
        raise InputError(
            f"video {one_line(request.path)}: decord cannot read it ({reason}); try backend 'pyav'"
        ) from error
