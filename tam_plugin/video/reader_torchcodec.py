"""The torchcodec reader; torchcodec is optional and loads only beside the libav versions it was built for."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tam_plugin.errors import InputError, MissingDependencyError
from tam_plugin.video.container import one_line
from tam_plugin.video.foreign import BATCH, cannot_read, take_checked
from tam_plugin.video.index import PacketIndex
from tam_plugin.video.reader import ReadRequest


def require_torchcodec() -> Any:
    """``torchcodec.decoders.VideoDecoder``.

    Raises:
        MissingDependencyError: torchcodec is not installed, or does not load.
    """
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependencyError(
            f"video backend 'torchcodec' needs the package 'torchcodec', which cannot be imported ({one_line(error)}); "
            f"install the torchcodec that was built for your torch (0.13 for torch 2.13), and FFmpeg's libraries"
        ) from error
    return VideoDecoder


def read(request: ReadRequest, exempt: set[int]) -> None:
    """Put torchcodec's pictures over PyAV's in ``request.out``; see :mod:`tam_plugin.video.foreign`.

    It turns frames upright by itself, and tells the times of what it decoded: these must be the index's.

    Raises:
        InputError: torchcodec cannot read the file, or returns other pictures.
    """
    decoder_class = require_torchcodec()
    indices = request.indices.tolist()
    height, width = request.out.shape[1:3]
    options: dict[str, Any] = {"dimension_order": "NHWC", "num_ffmpeg_threads": request.num_threads}
    if request.scales:
        from torchcodec.transforms import Resize

        options["transforms"] = [Resize((height, width))]
    try:
        # an absolute path is never taken for an address
        decoder = decoder_class(os.path.abspath(request.path), stream_index=request.stream, **options)
        if len(decoder) != request.index.num_frames:
            raise ValueError(f"it finds {len(decoder)} frames where {request.index.num_frames} are shown")
        for start in range(0, len(indices), BATCH):
            batch = decoder.get_frames_at(indices[start : start + BATCH])
            _require_times(request, start, np.asarray(batch.pts_seconds, np.float64))
            take_checked(request, "torchcodec", start, batch.data.numpy(), exempt)
    except InputError:
        raise
    except Exception as error:  # RuntimeError, IndexError, JSONDecodeError, ...: whatever the file made of it
        raise cannot_read(request, "torchcodec", error) from error


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
