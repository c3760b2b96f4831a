"""The torchcodec reader; torchcodec is optional and loads only beside the libav versions it was built for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.errors import require
from tam_plugin.video.foreign import cannot_read, take_checked
from tam_plugin.video.guest import BATCH, Guest, GuestError
from tam_plugin.video.index import PacketIndex
from tam_plugin.video.reading import ReadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GUEST = Guest(__name__)


def read(request: ReadRequest, exempt: set[int]) -> None:
    """Put torchcodec's pictures over PyAV's in ``request.out``; see :mod:`tam_plugin.video.foreign`.

    It tells the times of what it decoded: these must be the index's.

    Raises:
        InputError: torchcodec cannot read the file, or returns other pictures.
    """
    height, width = request.out.shape[1:3]
    order = {
        "path": os.path.abspath(request.path),  # never taken for an address
        "stream": request.stream,
        "indices": request.indices.tolist(),
        "num_frames": request.index.num_frames,
        "num_threads": request.num_threads,
        "size": [height, width] if request.scales else None,
    }
    try:
        for batch, (pictures, times_s) in enumerate(_GUEST.batches(order, (height, width, 3))):
            _require_times(request, batch * BATCH, np.asarray(times_s, np.float64))
            take_checked(request, "torchcodec", batch * BATCH, pictures, exempt)
    except GuestError as error:
        raise cannot_read(request, "torchcodec", error) from error


def decode(order: dict[str, Any]) -> Iterator[tuple[NDArray[np.uint8], list[float]]]:
    """Pictures in batches, turned upright by torchcodec itself, and their times in seconds."""
    decoder_class = require("torchcodec.decoders", needed_for="video backend 'torchcodec'").VideoDecoder
    options: dict[str, Any] = {"dimension_order": "NHWC", "num_ffmpeg_threads": order["num_threads"]}
    if order["size"] is not None:
        from torchcodec.transforms import Resize

        options["transforms"] = [Resize(tuple(order["size"]))]
    decoder = decoder_class(order["path"], stream_index=order["stream"], **options)
    if len(decoder) != order["num_frames"]:
        raise ValueError(f"it finds {len(decoder)} frames where {order['num_frames']} are shown")
    for start in range(0, len(order["indices"]), BATCH):
        batch = decoder.get_frames_at(order["indices"][start : start + BATCH])
        yield batch.data.numpy(), batch.pts_seconds.tolist()


def _require_times(request: ReadRequest, start: int, found_s: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    index = request.index
    if not isinstance(index, PacketIndex):
        return
    places = request.indices[start : start + len(found_s)]
    expected_s = index.pts[index.shown[places]] * index.seconds_per_tick
    # an edit list may shift all times alike: what counts is that they lie at the same distances
    shift_s = found_s - expected_s
    if np.ptp(shift_s) > index.seconds_per_tick + 1e-6:
        raise cannot_read(request, "torchcodec", "it decodes frames of other times than those asked for")
