"""The one interface of the readers, and the choice among them."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tam_plugin.errors import InputError, require
from tam_plugin.video.container import one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tam_plugin.video.index import FrameIndex
    from tam_plugin.video.orientation import Orientation


@dataclass(frozen=True, kw_only=True)
class ReadRequest:
    """What a reader is asked for.

    Attributes:
        path: the file.
        index: its frame index.
        orientation: the turn that makes its pictures upright.
        indices: int64 ``[T]``, frames wanted, in the order of presentation, strictly increasing.
        native_size: (width, height) of the pictures as stored, before they are turned.
        out: uint8 ``[T, H, W, 3]``, C-contiguous: upright frames go here; where H and W are not the native ones, the
            reader scales.
        num_threads: threads that may decode at a time.
    """

    path: str
    index: FrameIndex
    orientation: Orientation
    indices: NDArray[np.int64]
    native_size: tuple[int, int]
    out: NDArray[np.uint8]
    num_threads: int

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) of the pictures wanted, before they are turned."""
        height, width = self.out.shape[1:3]
        return (height, width) if self.orientation.swaps_sides else (width, height)

    @property
    def scales(self) -> bool:
        """Whether the pictures wanted are not of the size they are stored in."""
        return self.stored_size != self.native_size


class Reader(Protocol):
    """Decodes frames of one file into an array."""

    def __call__(self, request: ReadRequest) -> None:
        """Fill ``request.out``.

        Raises:
            FramesMissingError: some frames that the index lists did not come out of the decoder.
        """


class FramesMissingError(Exception):
    """Frames that the index lists did not come out of the decoder; ``got`` did."""

    def __init__(self, got: int) -> None:
        super().__init__(got)
        self.got = got


def other_count(backend: str, count: int, request: ReadRequest) -> InputError:
    """The error for a library that does not list the frames that are shown (hidden by an edit list, say)."""
    return InputError(
        f"video {one_line(request.path)}: {backend} finds {count} frames where {request.index.num_frames} are shown, "
        f"so their numbers do not agree; use backend 'pyav'"
    )


_READERS: dict[str, tuple[str, str | None]] = {
    "pyav": ("av", None),
    "decord": ("decord", "decord"),
    "torchcodec": ("torchcodec", "torchcodec"),
}
"""Backend → (package it needs, the extra that brings it), fastest first: ``auto`` takes the first one installed."""

BACKENDS = ("auto", *_READERS)


def available_backends() -> tuple[str, ...]:
    """Backends whose package is installed, fastest first (a package that is installed may still fail to load)."""
    return tuple(name for name, (package, _) in _READERS.items() if importlib.util.find_spec(package) is not None)


def check_backend(backend: str) -> str:
    """The name of the reader behind ``backend``; ``"auto"`` is the fastest that is installed.

    Raises:
        InputError: there is no such backend.
        MissingDependencyError: its package is not installed or does not load.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = next(iter(available_backends()), "pyav")
    package, extra = _READERS[backend]
    if backend == "torchcodec":  # a broken libav shows as RuntimeError when the package is imported
        from tam_plugin.video.reader_torchcodec import require_torchcodec

        require_torchcodec()
    else:
        require(package, needed_for=f"video backend {backend!r}", extra=extra)
    return backend


def reader_of(backend: str) -> Reader:
    """The reader named ``backend`` (a name that :func:`check_backend` returned)."""
    module = importlib.import_module(f"tam_plugin.video.reader_{backend}")
    read: Reader = module.read
    return read
