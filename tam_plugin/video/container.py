"""Opening video files with PyAV: every failure becomes one line that names the file and says what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tam_plugin.errors import InputError, one_line


def checked_path(path: str | os.PathLike[str]) -> str:
    """``path`` as a string, if it names a file with something in it or a directory.

    Raises:
        InputError: there is nothing there, or it is neither a file nor a directory, or the file is empty.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"video path {name!r}: expected the name of a video file or of a directory of images")
    if os.path.isdir(name):
        return name
    if not os.path.exists(name):
        raise InputError(f"video {one_line(name)}: no such file; give the path of a video or of a directory of images")
    if not os.path.isfile(name):
        raise InputError(f"video {one_line(name)}: not a regular file; expected a video file or a directory of images")
    if os.path.getsize(name) == 0:
        raise InputError(f"video {one_line(name)}: the file is empty (0 bytes); expected a video file")
    return name


@contextmanager
def libav_errors(path: str, doing: str) -> Iterator[None]:
    """Turn libav's and the system's errors into :class:`InputError`; ``doing`` says what failed, in words."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise InputError(f"video {one_line(path)}: {doing} ({one_line(reason)}); expected a video file") from error


@contextmanager
def open_video(path: str, *, num_threads: int = 1) -> Iterator[tuple[Any, Any]]:
    """The open container of ``path`` and its video stream.

    Args:
        path: a file; never taken for an address or a pattern, whatever its name.
        num_threads: threads inside the decoder; 1 where several containers are read side by side.

    Raises:
        InputError: libav cannot open it, or it has no video stream (a cover picture is none).
    """
    import av

    with libav_errors(path, "cannot be opened as a video"):
        # the protocol is named so that "http:x.mp4" or "pipe:" is a file like any other
        container = av.open(f"file:{path}", metadata_errors="replace")
    with container:
        yield container, _video_stream(path, container, num_threads)


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of ``stream`` from where the container stands, without the empty ones that PyAV puts at the end."""
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, IndexError):  # PyAV's own end mark fails where streams came up after the file was opened
            return
        if packet.size:
            yield packet


def _video_stream(path: str, container: Any, num_threads: int) -> Any:
    stream = next((s for s in container.streams.video if not _is_cover(s)), None)
    if stream is None:
        kinds = sorted({s.type for s in container.streams}) or ["no"]
        raise InputError(f"video {one_line(path)}: has {' and '.join(kinds)} streams only; expected a video stream")
    if stream.codec_context is None:
        raise InputError(f"video {one_line(path)}: its codec is unknown to this build of libav; re-encode it as H.264")
    stream.codec_context.thread_count = num_threads
    if num_threads > 1:
        stream.codec_context.thread_type = "AUTO"
    return stream


def _is_cover(stream: Any) -> bool:
    return "attached_pic" in str(getattr(stream, "disposition", ""))
