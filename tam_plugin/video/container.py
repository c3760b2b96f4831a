"""Opening video files with PyAV: every failure becomes one line that names the file and says what is wrong with it.

Files come from strangers. Only demuxers of video containers are allowed (no playlists, no image patterns, no scripts),
only the ``file:`` protocol is, and a file that libav cannot get through in time is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tam_plugin.errors import InputError, one_line

DEMUXERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "live_flv", "asf", "ogg", "gif", "apng", "nut"),
    *("mxf", "mxf_opatom", "rm", "dv", "wtv", "gxf", "ivf", "yuv4mpegpipe", "m4v", "mjpeg", "h261", "h263", "h264"),
    *("hevc", "vvc", "evc", "av1", "obu", "vc1", "vc1test", "cavsvideo", "avs2", "avs3", "dirac", "swf", "nsv"),
    *("jpeg_pipe", "png_pipe", "webp_pipe", "bmp_pipe"),  # a single picture is a video of one frame
)
"""libav's names of the formats that are opened: containers of video and bare video streams. Formats that name other
files (concat, hls, dash, image patterns, ...) are left out on purpose."""

MAX_PIXELS = 1 << 28
"""Pixels of one picture, at most (16 K is 133 million): a header of a few bytes can ask for any size."""

OPEN_TIMEOUT_S, READ_TIMEOUT_S = 60.0, 60.0
"""Seconds that libav may take to open a file, and for one read from it."""

_COVERS = ("attached_pic", "timed_thumbnails")

_FROM_FILES = (OSError, ValueError, ArithmeticError, RuntimeError, LookupError, MemoryError, EOFError)


def checked_path(path: str | os.PathLike[str]) -> str:
    """``path`` as a string, if it names a file with something in it or a directory.

    Raises:
        InputError: there is nothing there, or it is neither a file nor a directory, or the file is empty.
    """
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InputError(f"video path {name!r}: expected the name of a video file or of a directory of images")
    try:
        if os.path.isdir(name):
            return name
        if not os.path.exists(name):
            raise InputError(
                f"video {one_line(name)}: no such file; give the path of a video or of a directory of images"
            )
        if not os.path.isfile(name):
            raise InputError(
                f"video {one_line(name)}: not a regular file; expected a video file or a directory of images"
            )
        if os.path.getsize(name) == 0:
            raise InputError(f"video {one_line(name)}: the file is empty (0 bytes); expected a video file")
    except (OSError, UnicodeError) as error:
        raise InputError(f"video path {name!r}: cannot be looked at ({error}); expected a video file") from error
    return name


@contextmanager
def libav_errors(path: str, doing: str) -> Iterator[None]:
    """Turn what libav, PyAV and the system raise into :class:`InputError`; ``doing`` says what failed, in words.

    PyAV lets a hostile file's values through to ``ValueError``, ``OverflowError``, ``MemoryError`` and their like.
    """
    import av

    try:
        yield
    except InputError:
        raise
    except (*_FROM_FILES, av.error.FFmpegError) as error:
        reason = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        raise InputError(f"video {one_line(path)}: {doing} ({one_line(reason)}); expected a video file") from error


def open_container(path: str, *, num_threads: int = 1) -> OpenContainer:
    """Open ``path`` and choose the video stream that players choose.

    Args:
        path: a file; never taken for an address or a pattern, whatever its name.
        num_threads: threads inside the decoder; 1 where several containers are read side by side.

    Raises:
        InputError: libav cannot open it, its format is not among :data:`DEMUXERS`, it has no video stream (a cover
            picture is none), or its pictures are larger than :data:`MAX_PIXELS`.
    """
    with libav_errors(path, "cannot be opened as a video"):
        container = _opened(path)
    try:
        return OpenContainer(container, _video_stream(path, container, num_threads))
    except BaseException:
        container.close()
        raise


class OpenContainer(AbstractContextManager["OpenContainer"]):
    """An open file, the video stream that is read, and whether anything was read of it yet.

    Only one thread may use it at a time. It closes at the end of its ``with`` block.
    """

    def __init__(self, container: Any, stream: Any) -> None:
        self.container = container
        self.stream = stream
        self.at_start = True

    def packets(self) -> Iterator[Any]:
        """Packets of the stream from where the container stands."""
        self.at_start = False
        return _packets_of(self.container, self.stream)

    def seek(self, ticks: int) -> None:
        """Go to the keyframe at ``ticks`` of the stream's time base, or before it."""
        self.at_start = False
        self.container.seek(ticks, stream=self.stream, backward=True)

    def close(self) -> None:
        """Close the file."""
        self.container.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: str) -> Any:
    import av

    try:
        # the protocol is named so that "http:x.mp4" or "pipe:" is a file like any other
        return av.open(
            f"file:{path}",
            metadata_errors="replace",
            container_options={"format_whitelist": _known_demuxers(), "protocol_whitelist": "file"},
            timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S),
        )
    except av.error.FFmpegError as error:
        if error.errno == errno.EINVAL:  # what libav says of a format that is not on the list
            raise InputError(
                f"video {one_line(path)}: cannot be opened as a video (it is damaged, or not in one of the video "
                f"formats that are read: MP4, MOV, MKV, WebM, AVI, TS, ...); expected a video file"
            ) from error
        raise


def _packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of ``stream`` from where the container stands, without the empty ones that PyAV puts at the end."""
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, IndexError):  # PyAV's own end mark fails where streams came up after the file was opened
            return
        if packet.size:
            yield packet


def _known_demuxers() -> str:
    """The allow-list with libav's full names (``mov,mp4,m4a,3gp,3g2,mj2``): some builds compare whole names."""
    return ",".join((*DEMUXERS, "mp4", "m4a", "3gp", "3g2", "mj2", "webm"))


def _video_stream(path: str, container: Any, num_threads: int) -> Any:
    stream = _best_stream(container)
    if stream is None:
        kinds = sorted({s.type for s in container.streams}) or ["no"]
        raise InputError(f"video {one_line(path)}: has {' and '.join(kinds)} streams only; expected a video stream")
    codec = stream.codec_context
    if codec is None:
        raise InputError(f"video {one_line(path)}: its codec is unknown to this build of libav; re-encode it as H.264")
    check_picture_size(path, codec.width, codec.height)
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    if codec.name == "mjpeg":  # of a broken scan it would show what stood in memory before, and say nothing
        codec.options = {**codec.options, "err_detect": "explode"}
    codec.thread_count = num_threads
    if num_threads > 1:
        codec.thread_type = "AUTO"
    return stream


def check_picture_size(path: str, width: int, height: int) -> None:
    """Refuse pictures that nobody can hold.

    Raises:
        InputError: they have more than :data:`MAX_PIXELS` pixels.
    """
    if width * height > MAX_PIXELS:
        raise InputError(
            f"video {one_line(path)}: pictures of {width}×{height} pixels; expected at most {MAX_PIXELS} pixels each"
        )


def _best_stream(container: Any) -> Any | None:
    """libav's own choice among the video streams, which players follow; a cover picture is never chosen."""
    best = container.streams.best("video")
    if best is None or not _is_cover(best):
        return best
    films = [stream for stream in container.streams.video if not _is_cover(stream)]
    return max(films, key=_preference, default=None)


def _preference(stream: Any) -> tuple[int, int, int, int]:
    """libav's order of preference (``av_find_best_stream``) as far as PyAV tells it; the first of equals wins."""
    disposition = str(stream.disposition)
    impaired = "hearing_impaired" in disposition or "visual_impaired" in disposition
    rate = getattr(stream.codec_context, "bit_rate", None) or 0
    return (int(not impaired) + int("default" in disposition), min(5, stream.frames), rate, -stream.index)


def _is_cover(stream: Any) -> bool:
    disposition = str(getattr(stream, "disposition", ""))
    return any(kind in disposition for kind in _COVERS)
