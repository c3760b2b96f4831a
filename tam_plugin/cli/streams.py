"""The command line's output: control characters in what others wrote are shown, never sent to the terminal."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from tam_plugin.errors import one_line, printable

# What progress bars need of the terminal: the start of the line, the line above, and clearing a line.
_MOVES = re.compile(r"(\r|\x1b\[A|\x1b\[K)")


class SafeStream:
    """A text stream whose writes are made printable.

    Args:
        stream: where the text goes.
        progress: let through what progress bars use to move within the lines that they draw.
    """

    def __init__(self, stream: TextIO, *, progress: bool) -> None:
        self._stream = stream
        self._progress = progress

    def write(self, text: str) -> int:
        """Write a text; returns its length, as streams do."""
        if self._progress:
            parts = _MOVES.split(text)
            safe = "".join(part if at % 2 else printable(part) for at, part in enumerate(parts))
        else:
            safe = printable(text)
        self._stream.write(safe)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """Make ``sys.stdout`` and ``sys.stderr`` safe for the time of a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    out: Any = None if sys.stdout is None else SafeStream(sys.stdout, progress=False)
    err: Any = None if sys.stderr is None else SafeStream(sys.stderr, progress=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


def say(text: str) -> None:
    """One line on stderr."""
    print(one_line(text), file=sys.stderr)
