"""sample_frames: the frames that a budget buys, taken from a video file or a directory of images."""

from __future__ import annotations

import os
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import checked_path, one_line
from tam_plugin.video.header import Header, read_header
from tam_plugin.video.index import FrameIndex
from tam_plugin.video.indices import snap_indices, uniform_indices
from tam_plugin.video.info import MAX_DAMAGED, SampledVideo
from tam_plugin.video.packets import scan_packets
from tam_plugin.video.probe import video_info
from tam_plugin.video.reader import NOT_READ, IndexBrokenError, Reading, ReadRequest, check_backend, reader_of
from tam_plugin.video.reader_pyav import read
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ATTEMPTS = 4
"""By packets, in order, and in order again by what was counted; a file that changes its count once more is hopeless."""


class FrameBudget(Protocol):
    """Anything that says how many frames to take, such as :class:`tam_plugin.VisualBudget`."""

    @property
    def num_frames(self) -> int:
        """Frames to take, T."""


def sample_frames(
    path: str | os.PathLike[str],
    budget: FrameBudget | int,
    backend: str = "auto",
    snap_to_keyframes: bool = False,
    *,
    size: int | tuple[int, int] | None = None,
    num_threads: int | None = None,
    image_fps: float = 1.0,
    max_damaged: float = MAX_DAMAGED,
) -> SampledVideo:
    """Take a budget's frames, uniformly spread over a video, the first and the last frame included.

    Args:
        path: a video file, or a directory of images, which are taken in natural order.
        budget: how many frames; never more are taken than the video has.
        backend: ``"pyav"``, ``"decord"``, ``"torchcodec"``, or ``"auto"`` for the fastest that is installed.
            A directory of images is always read with Pillow.
        snap_to_keyframes: move each sample to the nearest keyframe within half the sampling interval, where there is
            one: much less to decode. The timestamps are those of the frames really returned.
        size: the most pixels of either side, or of (width, height); the decoder scales, so frames are never held at
            their native size. Each side is held to it by itself, see :func:`tam_plugin.video.scaling.output_size`.
            None keeps the native size, with the pixels that the host's decord path gives.
        num_threads: threads that decode at a time; None takes the processors of this process, at most 8.
        image_fps: frames per second of a directory of images.
        max_damaged: the share of the frames asked for that may be damaged. Each damaged frame is replaced by the
            nearest whole one of its sampling interval and named in ``damaged_frames``; above this share the video is
            refused.

    Returns:
        The frames, uint8 ``[T, H, W, 3]``, their indices and true timestamps. Memory is bounded by them: besides, one
        decoded picture a thread and, for each packet of the file, some tens of bytes are held.

    Raises:
        InputError: the file, the budget, the backend's name or the size cannot be used, or the backend asked for cannot
            prove that its frames are the ones wanted; one line says why.
        MissingDependencyError: the package of the backend asked for is not installed.
    """
    num_frames = budget if isinstance(budget, Integral) else getattr(budget, "num_frames", None)
    if isinstance(num_frames, bool) or not isinstance(num_frames, Integral) or num_frames < 1:
        raise InputError(f"budget = {budget!r}: expected a number of frames >= 1, or a budget that has num_frames")
    num_frames = int(num_frames)
    backend = check_backend(backend)
    threads = _threads(num_threads)
    name = checked_path(path)
    wanted = _Wanted(num_frames, backend, snap_to_keyframes, size, threads, _share(max_damaged))
    try:
        if os.path.isdir(name):
            from tam_plugin.video.images import sample_images

            return sample_images(name, num_frames, size=size, num_threads=threads, image_fps=image_fps)
        header = read_header(name)
        return _sample(header, header.index or scan_packets(name), wanted)
    except MemoryError as error:
        raise InputError(
            f"video {one_line(name)}: {num_frames} of its frames do not fit in memory; "
            f"ask for fewer, or for a smaller size"
        ) from error


class _Wanted(NamedTuple):
    num_frames: int
    backend: str
    snap: bool
    size: int | tuple[int, int] | None
    num_threads: int
    max_damaged: float


def _sample(header: Header, index: FrameIndex, wanted: _Wanted) -> SampledVideo:
    """Take the frames by ``index``; where it turns out not to hold, by the one that decoding gave."""
    for _ in range(_ATTEMPTS):
        indices = _places(index, wanted)
        request = _request(header, index, indices, wanted)
        try:
            reading = read(request)
        except IndexBrokenError as error:
            index = FrameIndex(
                timestamps_s=index.timestamps_s,
                is_keyframe=np.zeros(index.num_frames, np.bool_),
                last_s=index.last_s,
                in_order=str(error),
            )
            continue
        if reading.index.num_frames == index.num_frames:
            return _sampled(header, reading, request, wanted)
        index = reading.index
    raise InputError(
        f"video {one_line(header.path)}: its frames cannot be counted, each reading finds other ones; re-encode it"
    )


def _places(index: FrameIndex, wanted: _Wanted) -> NDArray[np.int64]:
    uniform = uniform_indices(index.num_frames, wanted.num_frames)
    return snap_indices(uniform, index.timestamps_s, index.is_keyframe) if wanted.snap else uniform


def _request(header: Header, index: FrameIndex, indices: NDArray[np.int64], wanted: _Wanted) -> ReadRequest:
    width, height = header.size[::-1] if header.orientation.swaps_sides else header.size
    width, height = output_size(wanted.size, width, height)
    return ReadRequest(
        path=header.path,
        stream=header.stream,
        codec=header.codec,
        index=index,
        orientation=header.orientation,
        indices=indices,
        native_size=header.size,
        out=np.empty((len(indices), height, width, 3), np.uint8),
        num_threads=wanted.num_threads,
    )


def _sampled(header: Header, reading: Reading, request: ReadRequest, wanted: _Wanted) -> SampledVideo:
    damaged = tuple(int(request.indices[row]) for row in reading.damaged)
    kept = reading.shown != NOT_READ
    if len(damaged) > wanted.max_damaged * len(kept) or not kept.any():
        raise InputError(
            f"video {one_line(header.path)}: {len(damaged)} of the {len(kept)} frames asked for are damaged; at most a "
            f"share of {wanted.max_damaged:g} is accepted (max_damaged); get a whole copy of it"
        )
    index, indices, frames = reading.index, reading.shown, request.out
    if not kept.all():
        indices, frames = indices[kept], frames[kept]
    if wanted.backend != "pyav":
        exempt = set(np.flatnonzero(np.isin(indices, damaged)).tolist())
        reader_of(wanted.backend)(replace(request, index=index, indices=indices, out=frames), exempt)
    uniform = uniform_indices(index.num_frames, wanted.num_frames)
    return SampledVideo(
        frames=frames,
        timestamps_s=index.timestamps_s[indices],
        indices=indices,
        info=video_info(header, index),
        backend=wanted.backend,
        snapped=int((request.indices != uniform).sum()),
        damaged_frames=damaged,
    )


def _share(max_damaged: float) -> float:
    if isinstance(max_damaged, bool) or not isinstance(max_damaged, int | float) or not 0 <= max_damaged <= 1:
        raise InputError(f"max_damaged = {max_damaged!r}: expected a share between 0 and 1")
    return float(max_damaged)


def _threads(num_threads: int | None) -> int:
    if num_threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise InputError(f"num_threads = {num_threads!r}: expected None or a whole number >= 1")
    return num_threads
