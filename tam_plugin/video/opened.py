"""open_video: a video that is opened once for any number of questions."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Protocol

from tam_plugin.errors import InputError
from tam_plugin.video.container import checked_path, one_line
from tam_plugin.video.indices import uniform_indices
from tam_plugin.video.info import MAX_DAMAGED
from tam_plugin.video.reader import check_backend
from tam_plugin.video.reading import ReadOptions
from tam_plugin.video.samplers import KEYFRAME, UNIFORM, Sampler, check_indices, sampler_named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tam_plugin.taxonomy import TaskDistribution
    from tam_plugin.video.index import FrameIndex
    from tam_plugin.video.info import SampledVideo, VideoInfo

_ATTEMPTS = 4
"""By packets, in order, and in order again by what was counted; a file that changes its count once more is hopeless."""


class FrameBudget(Protocol):
    """Anything that says how many frames to take, such as :class:`tam_plugin.VisualBudget`."""

    @property
    def num_frames(self) -> int:
        """Frames to take, T."""


class FrameSource(Protocol):
    """Where frames come from: a video file or a directory of images."""

    index: FrameIndex

    def info(self) -> VideoInfo:
        """What is known of the video."""

    def read(self, indices: NDArray[np.int64], index: FrameIndex, options: ReadOptions) -> SampledVideo | None:
        """The frames at ``indices`` of ``index``; None where it does not hold and :attr:`index` is a better one now."""

    def close(self) -> None:
        """Close whatever is open."""


def open_video(path: str | os.PathLike[str], *, image_fps: float = 1.0) -> Video:
    """Open a video file, or a directory of images, which are taken in natural order: ``frame_2`` before ``frame_10``.

    Of a file, the header is read and one frame decoded, for the size and the turn it is displayed with. Where the
    header does not list every frame (as MP4 and MOV do), the packets are read once, without decoding them.

    ::

        with open_video("talk.mkv") as video:
            budget = tam.plan(question, video.info.duration_s)
            sampled = video.sample(budget, query=question)

    Args:
        path: the file or directory.
        image_fps: frames per second of a directory of images.

    Raises:
        InputError: there is no such file, or it is no video that can be decoded; one line says why.
    """
    name = checked_path(path)
    if os.path.isdir(name):
        from tam_plugin.video.image_folder import ImageFolder

        return Video(name, ImageFolder(name, image_fps))
    from tam_plugin.video.video_file import VideoFile

    return Video(name, VideoFile(name))


class Video(AbstractContextManager["Video"]):
    """An opened video, made by :func:`open_video`. It holds open files but no frames; close it, or use ``with``.

    Several threads may use it at the same time: each has an open file of its own then.

    Attributes:
        path: the file or directory.
    """

    def __init__(self, path: str, source: FrameSource) -> None:
        self.path = path
        self._source = source
        self._is_open = True

    @property
    def info(self) -> VideoInfo:
        """Duration, frame rate, number of frames and displayed size, as far as they are known.

        A file whose packets do not tell when their frames are shown is decoded as a whole when this is asked for first.
        Frames that are read later may show that there are others than the packets told; this tells the new number then.

        Raises:
            InputError: the file has to be decoded for it and cannot be.
        """
        return self._source.info()

    @property
    def num_frames(self) -> int:
        """Frames that the video shows, n, as far as it is known; never decodes anything."""
        return self._source.index.num_frames

    @property
    def timestamps_s(self) -> NDArray[np.float64]:
        """float64 ``[n]``, the presentation time of each frame, counted from the first; a copy.

        Raises:
            InputError: as :attr:`info`.
        """
        self._source.info()
        return self._source.index.timestamps_s.copy()

    @property
    def keyframes(self) -> NDArray[np.int64]:
        """int64 ``[K]``, the frames that decoding can start from, ascending: each costs the decoding of itself alone.

        Empty where the file can be decoded only from its start: then any frames cost the decoding of the whole file.
        """
        return self._source.index.keyframes

    def frames_at(
        self,
        indices: Sequence[int] | NDArray[np.integer],
        *,
        backend: str = "auto",
        size: int | tuple[int, int] | None = None,
        num_threads: int | None = None,
        max_damaged: float = MAX_DAMAGED,
    ) -> SampledVideo:
        """The frames at ``indices``; the other arguments are those of :meth:`sample`.

        Args:
            indices: whole numbers ``[T]``, places in the order of presentation, ascending, each once.
            backend: see :meth:`sample`; so are the others.

        Returns:
            The frames. A damaged frame is replaced as in :meth:`sample`.

        Raises:
            InputError: as :meth:`sample`; or the video has no such frames.
        """
        options = _options(backend, size, num_threads, max_damaged)
        taken, _ = self._read(lambda: check_indices(indices, self.num_frames, named_by=self._name), options)
        return taken

    def sample(
        self,
        budget: FrameBudget | int,
        *,
        sampler: str | Sampler = UNIFORM,
        query: str | None = None,
        distribution: TaskDistribution | None = None,
        backend: str = "auto",
        size: int | tuple[int, int] | None = None,
        num_threads: int | None = None,
        max_damaged: float = MAX_DAMAGED,
    ) -> SampledVideo:
        """Take a budget's frames.

        Args:
            budget: how many frames; never more are taken than the video has.
            sampler: how they are chosen, a registered name or the sampler itself. ``"uniform"`` spreads them over the
                video, the first and the last frame included; ``"keyframe"`` moves each of these to the nearest keyframe
                within half the sampling interval, where there is one: much less to decode.
            query: the question, for samplers that choose by it.
            distribution: its task type, for samplers that choose by it.
            backend: ``"pyav"``, ``"decord"``, ``"torchcodec"``, or ``"auto"`` for the fastest that is installed.
                A directory of images is always read with Pillow.
            size: the most pixels of either side, or of (width, height); the decoder scales, so frames are never held at
                their native size. Each side is held to it by itself, see
                :func:`tam_plugin.video.scaling.output_size`. None keeps the native size, with the pixels that the
                host's decord path gives.
            num_threads: threads that decode at a time; None takes the processors of this process, at most 8.
            max_damaged: the share of the frames asked for that may be damaged. Each damaged frame is replaced by the
                nearest whole one of its sampling interval and named in ``damaged_frames``; above this share the video
                is refused.

        Returns:
            The frames, uint8 ``[T, H, W, 3]``, their indices and true timestamps. Memory is bounded by them: besides,
            one decoded picture per thread and, for each packet of the file, some tens of bytes are held.

        Raises:
            InputError: the file, the budget, the size or the name of the backend or sampler cannot be used, the sampler
                named frames that the video does not have, or the backend asked for cannot prove that its frames are the
                ones wanted; one line says why.
            MissingDependencyError: the package of the backend asked for is not installed.
        """
        num_frames = _frames_of(budget)
        chosen_by = sampler_named(sampler) if isinstance(sampler, str) else sampler
        options = _options(backend, size, num_threads, max_damaged)

        def choose() -> NDArray[np.int64]:
            indices = chosen_by(self, num_frames, query=query, distribution=distribution)
            named_by = f"{self._name}: sampler {chosen_by.name!r}"
            return check_indices(indices, self.num_frames, named_by=named_by, at_most=num_frames)

        taken, indices = self._read(choose, options)
        snapped = 0
        if chosen_by.name == KEYFRAME:
            snapped = int((indices != uniform_indices(taken.info.num_frames, num_frames)).sum())
        return replace(taken, sampler=chosen_by.name, snapped=snapped)

    def _read(
        self, choose: Callable[[], NDArray[np.int64]], options: ReadOptions
    ) -> tuple[SampledVideo, NDArray[np.int64]]:
        """The frames that ``choose`` names, and their indices; chosen again where the index turned out not to hold."""
        if not self._is_open:
            raise InputError(f"{self._name}: it was closed; open it again to read frames")
        for _ in range(_ATTEMPTS):
            index = self._source.index
            try:
                indices = choose()
            except InputError:
                if index.numbers_like(self._source.index):
                    raise
                continue
            if not index.numbers_like(self._source.index):  # frames that the sampler looked at showed it
                continue
            try:
                taken = self._source.read(indices, index, options)
            except MemoryError as error:
                raise InputError(
                    f"{self._name}: {len(indices)} of its frames do not fit in memory; ask for fewer, or for a "
                    f"smaller size"
                ) from error
            if taken is not None:
                return taken, indices
        raise InputError(
            f"{self._name}: its frames cannot be counted, since each reading finds different ones; re-encode it"
        )

    @property
    def _name(self) -> str:
        return f"video {one_line(self.path)}"

    def close(self) -> None:
        """Close the files; what is known of the video, :attr:`info`, stays."""
        self._is_open = False
        self._source.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _frames_of(budget: FrameBudget | int) -> int:
    num_frames = budget if isinstance(budget, Integral) else getattr(budget, "num_frames", None)
    if isinstance(num_frames, bool) or not isinstance(num_frames, Integral) or num_frames < 1:
        raise InputError(f"budget = {budget!r}: expected a number of frames >= 1, or a budget that has num_frames")
    return int(num_frames)


def _options(
    backend: str, size: int | tuple[int, int] | None, num_threads: int | None, max_damaged: float
) -> ReadOptions:
    backend = check_backend(backend)
    if num_threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        num_threads = min(8, len(affinity(0)) if affinity else os.cpu_count() or 1)
    if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
        raise InputError(f"num_threads = {num_threads!r}: expected None or a whole number >= 1")
    if isinstance(max_damaged, bool) or not isinstance(max_damaged, int | float) or not 0 <= max_damaged <= 1:
        raise InputError(f"max_damaged = {max_damaged!r}: expected a share between 0 and 1")
    return ReadOptions(backend=backend, size=size, num_threads=num_threads, max_damaged=float(max_damaged))
