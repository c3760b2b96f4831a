"""Durations of many videos, each opened once, in processes of their own: a file that crashes its reader costs one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from tam_plugin.errors import InputError, MissingDependencyError

_GROUP = 8


class Probe(NamedTuple):
    """What a video's header says; ``error`` is one line, and the rest None, where it cannot be read."""

    duration_s: float | None = None
    num_frames: int | None = None
    error: str | None = None


def probe(path: str, image_fps: float) -> Probe:
    """Open a video file or a folder of images, decode a frame; never an error for what the file is."""
    from tam_plugin.video import probe_video

    try:
        info = probe_video(path, image_fps=image_fps)
    except MissingDependencyError:
        raise
    except Exception as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        return Probe(error=" ".join(reason.split())[:300])
    return Probe(info.duration_s, info.num_frames)


class Prober:
    """Probes videos ahead of their use, each once.

    Args:
        folder: what the videos' paths are relative to.
        image_fps: frames per second of a folder of images.
        workers: processes.
    """

    def __init__(self, folder: str, image_fps: float, workers: int) -> None:
        self._folder, self._image_fps, self._workers = folder, image_fps, workers
        self._known: dict[str, Probe] = {}
        self._started: list[tuple[Sequence[str], Future[list[Probe]]]] = []
        self._pool: ProcessPoolExecutor | None = None
        self._single: ProcessPoolExecutor | None = None

    def start(self, videos: Iterable[str]) -> None:
        """Begin to probe those videos that are not known yet."""
        under_way = {file for group, _ in self._started for file in group}
        files = dict.fromkeys(self._file(video) for video in videos)
        new = [file for file in files if file not in self._known and file not in under_way]
        for first in range(0, len(new), _GROUP):
            group = new[first : first + _GROUP]
            self._started.append((group, self._submit(group)))

    def get(self, videos: Sequence[str]) -> list[Probe]:
        """What each video's header says, in the order given."""
        self.start(videos)
        files = [self._file(video) for video in videos]
        wanted = set(files)
        later = []
        for group, future in self._started:
            if wanted.isdisjoint(group):
                later.append((group, future))
                continue
            try:
                found = future.result()
            except BrokenProcessPool:
                self._pool = None
                found = self._isolated(group)
            self._known.update(zip(group, found, strict=True))
        self._started = later
        return [self._known[file] for file in files]

    def close(self) -> None:
        """End the processes."""
        for pool in (self._pool, self._single):
            if pool is not None:
                pool.shutdown(cancel_futures=True)
        self._pool = self._single = None

    def _submit(self, group: Sequence[str]) -> Future[list[Probe]]:
        for _ in range(2):
            if self._pool is None:
                self._pool = _pool(self._workers)
            try:
                return self._pool.submit(_probe_all, group, self._image_fps)
            except BrokenProcessPool:
                self._pool = None
        raise InputError("the processes that probe videos exit as soon as they start; try --workers 1")

    def _isolated(self, group: Sequence[str]) -> list[Probe]:
        """Probe videos whose process ended, one group at a time, to find the one that ends it."""
        if self._single is None:
            self._single = _pool(1)
        try:
            return self._single.submit(_probe_all, group, self._image_fps).result()
        except BrokenProcessPool:
            self._single = None
        if len(group) == 1:
            return [Probe(error=f"video {group[0]!r}: the process that opened it crashed")]
        return [found for file in group for found in self._isolated([file])]

    def _file(self, video: str) -> str:
        """The path of a video, one for ``a.mp4`` and ``./a.mp4``."""
        return str(Path(self._folder, video))


def _probe_all(paths: Sequence[str], image_fps: float) -> list[Probe]:
    return [probe(path, image_fps) for path in paths]


def _pool(workers: int) -> ProcessPoolExecutor:
    """Processes that start afresh, as one with threads (torch has them) cannot be forked safely."""
    import multiprocessing

    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)


def _end_with_parent() -> None:
    """Leave no process behind when the parent is killed: its work queue would keep this one waiting for ever."""
    import multiprocessing
    import multiprocessing.connection
    import threading

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def wait() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
