"""The choice among readers.

One rule holds for all: a reader proves its frames or is not used for that file. PyAV proves them by the times that the
decoder gives, or by reading in order; the other libraries are checked against it.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Protocol

from tam_plugin.errors import InputError, require

if TYPE_CHECKING:
    from tam_plugin.video.reading import ReadRequest


class ForeignReader(Protocol):
    """Reads by another library what PyAV has read and proved."""

    def __call__(self, request: ReadRequest, exempt: set[int]) -> None:
        """Put the library's pictures over PyAV's in ``request.out``; rows in ``exempt`` are known to be damaged.

        Raises:
            InputError: the library cannot read the file, or returns other pictures.
        """


_READERS: dict[str, tuple[str, str | None]] = {
    "pyav": ("av", None),
    "decord": ("decord", "decord"),
    "torchcodec": ("torchcodec.decoders", "torchcodec"),
}
"""Backend → (module it needs, the extra that brings it), fastest first: ``auto`` takes the first one installed."""

BACKENDS = ("auto", *_READERS)


def available_backends() -> tuple[str, ...]:
    """Backends whose package is installed, fastest first (a package that is installed may still fail to load)."""
    packages = {name: module.partition(".")[0] for name, (module, _) in _READERS.items()}
    return tuple(name for name, package in packages.items() if importlib.util.find_spec(package) is not None)


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
    module, extra = _READERS[backend]
    require(module, needed_for=f"video backend {backend!r}", extra=extra)
    return backend


def reader_of(backend: str) -> ForeignReader:
    """The reader of another library named ``backend`` (a name that :func:`check_backend` returned, not ``"pyav"``)."""
    module = importlib.import_module(f"tam_plugin.video.reader_{backend}")
    read: ForeignReader = module.read
    return read
