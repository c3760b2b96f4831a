"""The open containers of one video file: none is opened again while one that was opened before is idle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from tam_plugin.video.container import OpenContainer, open_container


class ContainerPool:
    """Lends containers of one file, each to one thread at a time, and keeps those that come back for the next.

    Containers whose decoders have different numbers of threads do not stand in for each other. A container in whose
    use an error was raised is closed, since nobody knows what state it is in.

    Args:
        path: the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._idle: dict[int, list[OpenContainer]] = {}
        self._lock = Lock()
        self._is_open = True

    @contextmanager
    def lend(self, num_threads: int = 1) -> Iterator[OpenContainer]:
        """A container that stands anywhere in the file, with a decoder of ``num_threads`` threads.

        Raises:
            InputError: the file cannot be opened (any more).
        """
        opened = self._take(num_threads)
        try:
            yield opened
        except BaseException:
            opened.close()
            raise
        opened.stream.codec_context.flush_buffers()  # an idle decoder holds no pictures
        with self._lock:
            if self._is_open:
                self._idle.setdefault(num_threads, []).append(opened)
                return
        opened.close()

    def _take(self, num_threads: int) -> OpenContainer:
        with self._lock:
            idle = self._idle.get(num_threads)
            if idle:
                return idle.pop()
        return open_container(self._path, num_threads=num_threads)

    def close(self) -> None:
        """Close all containers that are idle, and the others as soon as they come back."""
        with self._lock:
            self._is_open = False
            idle = [opened for each in self._idle.values() for opened in each]
            self._idle.clear()
        for opened in idle:
            opened.close()
