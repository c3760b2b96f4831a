"""The elements of a JSON array in a file one after another, by the standard library's own parser.

The hosts read their data with ``json.load``; what is read here must be the same to the last character, since a sample
is known by a hash of its content. Streaming parsers differ from it: ijson's default backend turns half a surrogate pair
into ``?``, refuses ``NaN`` and numbers that it cannot hold, and takes memory by the square of the nesting. So the
elements are parsed by :class:`json.JSONDecoder`, in a window of the text that moves along the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tam_plugin.errors import InputError

WINDOW_CHARS = 1 << 16
"""Characters that are read at once, at least."""
_SPACE = " \t\n\r"
_UNFINISHED_CHARS = 16
"""An error this near to the end of the window may be that of a cut literal, number or escape."""


def read_array(path: Path) -> Iterator[Any]:
    """The elements of the JSON array that a UTF-8 file holds; a byte-order mark is dropped.

    Raises:
        InputError: the file cannot be read, is not JSON, or holds something else than an array; raised when the place
            is reached, with the number of the element.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for value in _elements(_Window(file), path):
                number += 1
                yield value
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    except json.JSONDecodeError as error:
        where = f"element {number + 1}, character {error.pos + 1}"
        raise InputError(f"{str(path)!r} cannot be read as JSON: {error.msg} ({where})") from error
    except (UnicodeError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else f"not UTF-8 text: {error}"
        raise InputError(f"{str(path)!r} cannot be read as JSON: {reason} (element {number + 1})") from error


def _elements(window: _Window, path: Path) -> Iterator[Any]:
    start = window.next_char()
    if start != "[":
        found = "dict" if start == "{" else type(window.value()).__name__
        raise InputError(f"{str(path)!r} must hold a JSON array of objects, found {found}")
    window.advance()
    separator = ","
    if window.next_char() == "]":
        separator = "]"
        window.advance()
    while separator == ",":
        yield window.value()
        separator = window.next_char()
        if separator not in (",", "]"):
            raise window.error("Expecting ',' delimiter")
        window.advance()
    if window.next_char():
        raise window.error("Extra data")


class _Window:
    """A part of a text file, and a place in it that only moves forward."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._decoder = file, json.JSONDecoder()
        self._text, self._at = "", 0
        self._before = 0  # characters of the file before the window
        self._ended = False

    def next_char(self) -> str:
        """The next character that is no white space, or nothing at the end of the file; it stays the next one."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest and rest not in _SPACE:
                return rest
            if rest:
                self._at += 1
            elif self._ended:
                return ""
            else:
                self._read()

    def advance(self) -> None:
        """Step over the next character."""
        self._at += 1

    def value(self) -> Any:
        """The next value, whole.

        Raises:
            json.JSONDecodeError: there is none; its ``pos`` counts from the start of the file.
        """
        self.next_char()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._ended or not self._may_be_cut(error):
                    raise self.error(error.msg, error.pos) from None
            else:
                if self._ended or end < len(self._text) - _UNFINISHED_CHARS:
                    self._at = end
                    return value
            self._read()

    def error(self, message: str, at: int | None = None) -> json.JSONDecodeError:
        """An error at a place of the window (default: the next character)."""
        found = json.JSONDecodeError(message, "", 0)
        found.pos = self._before + (self._at if at is None else at)
        return found

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _UNFINISHED_CHARS

    def _read(self) -> None:
        """Move on to the place, and read as much again as is left, so that a long value is parsed few times."""
        rest = self._text[self._at :]
        more = self._file.read(max(WINDOW_CHARS, len(rest)))
        self._before += self._at
        self._text, self._at = rest + more, 0
        self._ended = not more
