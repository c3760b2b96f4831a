"""The decord reader: the host's way.

decord runs in a process of its own: a file's header can make it end the process that it runs in.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from threading import Timer
from typing import IO, Any

import numpy as np

from tam_plugin.errors import require
from tam_plugin.video.foreign import BATCH, cannot_read, take_checked
from tam_plugin.video.reader import ReadRequest

_PATIENCE_S = 60.0
"""Seconds without a batch of frames after which the process is ended; opening and long groups of pictures take some."""


def read(request: ReadRequest, exempt: set[int]) -> None:
    """Put decord's pictures over PyAV's in ``request.out``; see :mod:`tam_plugin.video.foreign`.

    Raises:
        InputError: decord cannot read the file, or returns other pictures.
    """
    height, width = request.out.shape[1:3]
    order = {
        "path": os.path.abspath(request.path),  # never taken for an address
        "indices": request.indices.tolist(),
        "num_frames": request.index.num_frames,
        "num_threads": request.num_threads,
        "batch": BATCH,
        "size": {"width": width, "height": height} if request.scales else {},
    }
    command = [sys.executable, "-c", "from tam_plugin.video.reader_decord import serve; serve()"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.close()
            for start in range(0, len(request.indices), BATCH):
                count = min(BATCH, len(request.indices) - start)
                pictures = _next_batch(process, process.stdout, (count, height, width, 3), request)
                take_checked(request, "decord", start, pictures, exempt)
        finally:
            process.kill()


def _environment() -> dict[str, str]:
    """The child's environment: it finds the same packages, and nothing in the working directory."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "PYTHONSAFEPATH": "1"}


def _next_batch(
    process: subprocess.Popen[bytes], pipe: IO[bytes], shape: tuple[int, ...], request: ReadRequest
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    timer = Timer(_PATIENCE_S, process.kill)
    timer.start()
    try:
        answer = pipe.readline()
        reply = json.loads(answer) if answer else {"error": f"its process ended with code {process.wait()}"}
        if "error" in reply:
            raise cannot_read(request, "decord", reply["error"])
        if tuple(reply["shape"]) != shape:
            raise cannot_read(
                request, "decord", f"pictures of shape {reply['shape']} where {list(shape)} were asked for"
            )
        pictures = np.empty(shape, np.uint8)
        view, got = pictures.data.cast("B"), 0
        while got < len(view):
            more = pipe.readinto(view[got:])  # type: ignore[attr-defined]
            if not more:
                raise cannot_read(request, "decord", f"its process ended with code {process.wait()}")
            got += more
    finally:
        timer.cancel()
    return pictures


def serve() -> None:
    """The child's side: read one order from stdin; answer with a line and the pixels for each batch of frames."""
    order = json.loads(sys.stdin.readline())
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the library prints stays out of the pipe
    try:
        decord = require("decord", needed_for="video backend 'decord'", extra="decord")
        decord.logging.set_level(decord.logging.FATAL)
        video = decord.VideoReader(order["path"], ctx=decord.cpu(0), num_threads=order["num_threads"], **order["size"])
        if len(video) != order["num_frames"]:
            raise ValueError(f"it finds {len(video)} frames where {order['num_frames']} are shown")
        for start in range(0, len(order["indices"]), order["batch"]):
            pictures = video.get_batch(order["indices"][start : start + order["batch"]]).asnumpy()
            pipe.write(json.dumps({"shape": pictures.shape}).encode() + b"\n")
            pipe.write(pictures.tobytes())
            pipe.flush()
    except Exception as error:
        reason = " ".join(str(error).split()).split(" Stack trace")[0] or type(error).__name__
        pipe.write(json.dumps({"error": reason}).encode() + b"\n")
        pipe.flush()
