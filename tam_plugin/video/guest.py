"""Other libraries' readers in a process of their own: a damaged file can make them end the process that they run in.

One process for each library serves a whole run. It gets orders as lines of JSON, and answers with a line and the pixels
for each batch of frames. It ends with the process that started it, and is replaced when it breaks down.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from threading import Lock, Timer
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BATCH = 8
"""Frames that another library is asked for at a time, so that few are held besides the output."""

_PATIENCE_S = 60.0
"""Seconds without a batch of frames after which the process is ended; opening and long groups of pictures take some."""


class GuestError(Exception):
    """The library cannot read the file, or its process broke down; the message says how."""


class Guest:
    """A process that decodes with one library.

    Args:
        module: the module of this package whose ``decode(order)`` runs there. It yields a batch of pictures at a time,
            uint8 ``[B, H, W, 3]``, with their times in seconds, or None where the library does not tell them.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def batches(self, order: dict[str, Any], shape: tuple[int, int, int]) -> Iterator[tuple[NDArray[np.uint8], Any]]:
        """Pictures in batches, and their times.

        Args:
            order: what ``decode`` needs to know; ``order["indices"]`` are the frames.
            shape: height, width and 3: those of the pictures expected.

        Raises:
            GuestError: the library cannot read the file, ended its process, or did not answer in time.
        """
        with self._lock:
            process = self._started()
            done = False
            try:
                self._write(process, order)
                for start in range(0, len(order["indices"]), BATCH):
                    count = min(BATCH, len(order["indices"]) - start)
                    yield self._batch(process, (count, *shape))
                done = True
            finally:
                if not done:  # what is still in the pipe belongs to nobody
                    process.kill()
                    self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            command = [sys.executable, "-c", f"from tam_plugin.video.guest import serve; serve({self._module!r})"]
            # it finds the same packages, and nothing in the working directory
            paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **paths},
            )
            self._owner = os.getpid()
        return self._process

    @staticmethod
    def _write(process: subprocess.Popen[bytes], order: dict[str, Any]) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise GuestError(f"its process ended with code {process.wait()}") from error

    @staticmethod
    def _batch(process: subprocess.Popen[bytes], shape: tuple[int, ...]) -> tuple[NDArray[np.uint8], Any]:
        assert process.stdout is not None
        timer = Timer(_PATIENCE_S, process.kill)
        timer.start()
        try:
            line = process.stdout.readline()
            reply = json.loads(line) if line else {"error": f"its process ended with code {process.wait()}"}
            if "error" in reply:
                raise GuestError(reply["error"])
            if tuple(reply["shape"]) != shape:
                raise GuestError(f"pictures of shape {reply['shape']} where {list(shape)} were asked for")
            pictures = np.empty(shape, np.uint8)
            view, got = pictures.reshape(-1).data, 0
            while got < len(view):
                more = process.stdout.readinto(view[got:])  # type: ignore[attr-defined]
                if not more:
                    raise GuestError(f"its process ended with code {process.wait()}")
                got += more
        finally:
            timer.cancel()
        return pictures, reply["times_s"]


def serve(module: str) -> None:
    """The other side: answer orders from standard input until it closes."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints stays out of the pipe
    decode = importlib.import_module(module).decode
    for line in sys.stdin:
        try:
            for pictures, times_s in decode(json.loads(line)):
                pipe.write(json.dumps({"shape": pictures.shape, "times_s": times_s}).encode() + b"\n")
                pipe.write(np.ascontiguousarray(pictures).data)
                pipe.flush()
        except Exception as error:  # RuntimeError, DECORDError, JSONDecodeError, ...: whatever the file made of it
            reason = " ".join(str(error).split()).split(" Stack trace")[0] or type(error).__name__
            pipe.write(json.dumps({"error": reason}).encode() + b"\n")
            pipe.flush()
