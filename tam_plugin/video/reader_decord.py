"""The decord reader: the host's way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import require
from tam_plugin.video.foreign import cannot_read, take_checked
from tam_plugin.video.guest import BATCH, Guest, GuestError
from tam_plugin.video.reading import ReadRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_GUEST = Guest(__name__)


def read(request: ReadRequest, exempt: set[int]) -> None:
    """Put decord's pictures over PyAV's in ``request.out``; see :mod:`tam_plugin.video.foreign`.

    Raises:
        InputError: decord cannot read the file, or returns other pictures.
    """
    height, width = request.out.shape[1:3]
    order = {
        "path": os.path.abspath(request.path),  # never taken for an address
        "indices": request.indices.tolist(),
        "num_frames": request.index.num_frames,
        "num_threads": request.num_threads,
        "size": {"width": width, "height": height} if request.scales else {},
    }
    try:
        for batch, (pictures, _) in enumerate(_GUEST.batches(order, (height, width, 3))):
            take_checked(request, "decord", batch * BATCH, pictures, exempt)
    except GuestError as error:
        raise cannot_read(request, "decord", error) from error


def decode(order: dict[str, Any]) -> Iterator[tuple[NDArray[np.uint8], None]]:
    """Pictures in batches; decord turns them upright by itself, and does not tell their times."""
    decord = require("decord", needed_for="video backend 'decord'", extra="decord")
    decord.logging.set_level(decord.logging.FATAL)
    video = decord.VideoReader(order["path"], ctx=decord.cpu(0), num_threads=order["num_threads"], **order["size"])
    if len(video) != order["num_frames"]:
        raise ValueError(f"it finds {len(video)} frames where {order['num_frames']} are shown")
    for start in range(0, len(order["indices"]), BATCH):
        yield video.get_batch(order["indices"][start : start + BATCH]).asnumpy(), None
