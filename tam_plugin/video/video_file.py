"""A video file as a source of frames: its header and its index, read once, and the frames that readers take from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line
from tam_plugin.video.header import Header, read_header
from tam_plugin.video.in_order import scan_frames
from tam_plugin.video.index import FrameIndex
from tam_plugin.video.info import SampledVideo, VideoInfo
from tam_plugin.video.pool import ContainerPool
from tam_plugin.video.reader import reader_of
from tam_plugin.video.reader_pyav import read
from tam_plugin.video.reading import NOT_READ, IndexBrokenError, Reading, ReadOptions, ReadRequest
from tam_plugin.video.samplers import INDICES
from tam_plugin.video.scaling import output_size

if TYPE_CHECKING:
    from numpy.typing import NDArray


class VideoFile:
    """An open video file. One frame of it is decoded, for the size and the turn it is displayed with.

    Where the header lists every frame (MP4, MOV), nothing else is read; elsewhere the packets are read once, without
    decoding them.

    Args:
        path: the file.

    Attributes:
        index: the frames, as far as they are known.

    Raises:
        InputError: it is no video that can be decoded.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._containers = ContainerPool(path)
        with self._containers.lend() as opened:
            self._header, packets = read_header(path, opened)
            self.index: FrameIndex = self._header.index or packets.index()

    def info(self) -> VideoInfo:
        """What is known of the video; a file whose packets do not tell when frames are shown is decoded for it, once.

        Raises:
            InputError: it cannot be decoded.
        """
        if not self.index.timed:
            self.index = scan_frames(self._path, by_packets=self.index)
        return video_info(self._header, self.index)

    def read(self, indices: NDArray[np.int64], index: FrameIndex, options: ReadOptions) -> SampledVideo | None:
        """Read the frames at ``indices`` of ``index``; None where it does not hold and :attr:`index` is a better one.

        Raises:
            InputError: the file cannot be decoded, too much of it is damaged, or the reader asked for cannot read it.
        """
        request = self._request(indices, index, options)
        try:
            reading = read(request)
        except IndexBrokenError as error:
            self.index = FrameIndex(
                timestamps_s=index.timestamps_s,
                is_keyframe=np.zeros(index.num_frames, np.bool_),
                last_s=index.last_s,
                in_order=str(error),
            )
            return None
        holds = reading.index.num_frames == index.num_frames
        if not holds or not index.timed:
            self.index = reading.index
        return self._sampled(reading, request, options) if holds else None

    def close(self) -> None:
        """Close the file."""
        self._containers.close()

    def _request(self, indices: NDArray[np.int64], index: FrameIndex, options: ReadOptions) -> ReadRequest:
        header = self._header
        width, height = output_size(options.size, *header.displayed_size)
        return ReadRequest(
            path=self._path,
            containers=self._containers,
            stream=header.stream,
            codec=header.codec,
            index=index,
            orientation=header.orientation,
            indices=indices,
            native_size=header.size,
            out=np.empty((len(indices), height, width, 3), np.uint8),
            num_threads=options.num_threads,
        )

    def _sampled(self, reading: Reading, request: ReadRequest, options: ReadOptions) -> SampledVideo:
        damaged = tuple(int(request.indices[row]) for row in reading.damaged)
        kept = reading.shown != NOT_READ
        if len(damaged) > options.max_damaged * len(kept) or not kept.any():
            raise InputError(
                f"video {one_line(self._path)}: {len(damaged)} of the {len(kept)} frames asked for are damaged; at "
                f"most a share of {options.max_damaged:g} is accepted (max_damaged); get a whole copy of it"
            )
        index, indices, frames = reading.index, reading.shown, request.out
        if not kept.all():
            indices, frames = indices[kept], frames[kept]
        if options.backend != "pyav":
            exempt = set(np.flatnonzero(np.isin(indices, damaged)).tolist())
            reader_of(options.backend)(replace(request, index=index, indices=indices, out=frames), exempt)
        return SampledVideo(
            frames=frames,
            timestamps_s=index.timestamps_s[indices],
            indices=indices,
            info=video_info(self._header, index),
            backend=options.backend,
            sampler=INDICES,
            damaged_frames=damaged,
        )


def video_info(header: Header, index: FrameIndex) -> VideoInfo:
    """Put together what the header tells and what the index counts."""
    fps = _frame_rate(header.fps, index.num_frames, float(index.timestamps_s[-1]))
    width, height = header.displayed_size
    return VideoInfo(
        path=header.path,
        duration_s=index.duration_s(header.fps),
        fps=fps,
        num_frames=index.num_frames,
        width=width,
        height=height,
        codec=header.codec,
        rotation=header.orientation.rotation,
        mirrored=header.orientation.mirrored,
        counted=header.index is None or header.index.num_frames != index.num_frames,
    )


def _frame_rate(told: float | None, num_frames: int, span_s: float) -> float:
    """The rate that the container tells, unless the times belie it (a nominal rate of a variable-rate file, say).

    Args:
        told: the container's average rate.
        num_frames: frames that are shown.
        span_s: seconds from the first to the last.
    """
    told_span_s = (num_frames - 1) / told if told else None
    if told and told_span_s is not None and abs(told_span_s - span_s) <= max(1e-3 * span_s, 2e-3):
        return told
    return (num_frames - 1) / span_s if span_s > 0 else told or 25.0
