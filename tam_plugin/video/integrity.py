"""Files cut short: what the headers promise against what the file holds, read without decoding."""

from __future__ import annotations

import os
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"


def header_entries(stream: Any) -> Any | None:
    """The container's own table of all frames (MP4 and its kin), or None where it has none or only a part."""
    entries = getattr(stream, "index_entries", None)
    if entries is None or stream.frames <= 0 or len(entries) != stream.frames:
        return None
    return entries


def require_whole(path: str, stream: Any) -> None:
    """Refuse an MP4 whose header lists frames beyond the end of the file.

    Raises:
        InputError: the file was cut short; the message says how many frames are left.
    """
    entries = header_entries(stream)
    if entries is None:
        return
    size = os.path.getsize(path)
    last = entries[len(entries) - 1]
    if last.pos + last.size <= size:
        return
    left = sum(entry.pos + entry.size <= size for entry in entries)
    raise cut_short(path, left, len(entries))


def cut_short(path: str, readable: int, promised: int | None = None) -> InputError:
    """The error for a file that ends before its frames do."""
    share = f"{readable} of {promised} frames" if promised is not None else f"{readable} frames"
    return InputError(
        f"video {one_line(path)}: the file is cut short or damaged, only {share} can be read; get a whole copy of it"
    )


def matroska_is_cut(path: str) -> bool:
    """Whether ``path`` is a Matroska or WebM file whose segment is longer than the file."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if not head.startswith(_EBML_HEADER):
        return False
    start = head.find(_MATROSKA_SEGMENT)
    if start < 0 or start + 5 > len(head) or head[start + 4] == 0:
        return False
    first = head[start + 4]
    length = 9 - first.bit_length()
    size = int.from_bytes(head[start + 4 : start + 4 + length], "big") & ((1 << 7 * length) - 1)
    unknown = size == (1 << 7 * length) - 1  # a file that was streamed does not know its length
    return not unknown and start + 4 + length + size > os.path.getsize(path)
