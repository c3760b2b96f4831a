"""sample_frames: the frames that a budget buys, taken from a video file or a directory of images."""

from __future__ import annotations

import os
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import checked_path
from tam_plugin.video.header import Header, read_header
from tam_plugin.video.index import FrameIndex, scan_frames, scan_packets
from tam_plugin.video.indices import snap_indices, uniform_indices
from tam_plugin.video.info import SampledVideo
from tam_plugin.video.integrity import cut_short
from tam_plugin.video.probe import video_info
from tam_plugin.video.reader import FramesMissingError, ReadRequest, check_backend, reader_of
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    Returns:
        The frames, uint8 ``[T, H, W, 3]``, their indices and true timestamps. Memory is bounded by them: besides, one
        decoded picture a thread and, for each packet of the file, some tens of bytes are held.

    Raises:
        InputError: the file, the budget, the backend's name or the size cannot be used; one line says why.
        MissingDependencyError: the package of the backend asked for is not installed.
    """
    num_frames = budget if isinstance(budget, Integral) else getattr(budget, "num_frames", None)
    if isinstance(num_frames, bool) or not isinstance(num_frames, Integral) or num_frames < 1:
        raise InputError(f"budget = {budget!r}: expected a number of frames >= 1, or a budget that has num_frames")
    num_frames = int(num_frames)
    backend = check_backend(backend)
    threads = _threads(num_threads)
    name = checked_path(path)
    if os.path.isdir(name):
        from tam_plugin.video.images import sample_images

        return sample_images(name, num_frames, size=size, num_threads=threads, image_fps=image_fps)

    wanted = _Wanted(num_frames, backend, snap_to_keyframes, size, threads)
    header = read_header(name)
    index = header.index or scan_packets(name)
    if index is not None:
        try:
            return _sample(header, index, wanted)
        except FramesMissingError:
            pass  # packets that hold no frame of their own, or damage: decoding everything tells which
    index = scan_frames(name, num_threads=threads)
    try:
        return _sample(header, index, wanted)
    except FramesMissingError as error:
        raise cut_short(name, error.got, num_frames) from error


class _Wanted(NamedTuple):
    num_frames: int
    backend: str
    snap: bool
    size: int | tuple[int, int] | None
    num_threads: int


def _sample(header: Header, index: FrameIndex, wanted: _Wanted) -> SampledVideo:
    info = video_info(header, index)
    uniform = uniform_indices(index.num_frames, wanted.num_frames)
    indices = snap_indices(uniform, index.timestamps_s, index.is_keyframe) if wanted.snap else uniform
    width, height = output_size(wanted.size, info.width, info.height)
    frames: NDArray[np.uint8] = np.empty((len(indices), height, width, 3), np.uint8)
    request = ReadRequest(
        path=header.path,
        index=index,
        orientation=header.orientation,
        indices=indices,
        native_size=header.size,
        out=frames,
        num_threads=wanted.num_threads,
    )
    reader_of(wanted.backend)(request)
    return SampledVideo(
        frames=frames,
        timestamps_s=index.timestamps_s[indices],
        indices=indices,
        info=info,
        backend=wanted.backend,
        snapped=int((indices != uniform).sum()),
    )


def _threads(num_threads: int | None) -> int:
    if num_threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise InputError(f"num_threads = {num_threads!r}: expected None or a whole number >= 1")
    return num_threads
