"""Files cut short: what the headers promise against what the file holds, read without decoding."""

from __future__ import annotations

import os
import struct
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.video.container import one_line, packets_of

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")
_MP4_PAYLOAD = (b"mdat", b"moov", b"moof")


def header_entries(stream: Any) -> Any | None:
    """The container's own table of all frames (MP4 and its kin), or None where it has none or only a part.

    PyAV shows it from version 17 on.
    """
    entries = getattr(stream, "index_entries", None)
    if entries is None or stream.frames <= 0 or len(entries) != stream.frames:
        return None
    return entries


def require_whole(path: str, container: Any, stream: Any) -> None:
    """Refuse a file that ends before its frames do, where its container shows it: MP4, MOV, Matroska, WebM.

    Raises:
        InputError: the file was cut short; the message says how many frames are left.
    """
    entries = header_entries(stream)
    size = os.path.getsize(path)
    if entries is not None:
        last = entries[len(entries) - 1]
        if last.pos + last.size <= size:
            return
        left = sum(entry.pos + entry.size <= size for entry in entries)
        raise cut_short(path, left, len(entries))
    if _mp4_is_cut(path, size) or _matroska_is_cut(path, size):
        left = sum(not packet.is_corrupt for packet in packets_of(container, stream))
        raise cut_short(path, left, stream.frames or None)


def cut_short(path: str, readable: int, promised: int | None = None) -> InputError:
    """The error for a file that ends before its frames do."""
    share = f"{readable} of {promised} frames" if promised is not None else f"{readable} frames"
    return InputError(
        f"video {one_line(path)}: the file is cut short or damaged, only {share} can be read; get a whole copy of it"
    )


def _mp4_is_cut(path: str, size: int) -> bool:
    """Whether a box of an MP4 or MOV file that holds a header or frames reaches beyond the end of the file."""
    place = 0
    with open(path, "rb") as file:
        while len(head := file.read(16)) >= 8:
            length, kind = struct.unpack(">I4s", head[:8])
            if place == 0 and kind not in _MP4_FIRST:
                return False
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:  # 0: up to the end of the file, whichever that is
                return False
            place += length
            if place > size:
                return kind in _MP4_PAYLOAD
            file.seek(place)
    return False


def _matroska_is_cut(path: str, size: int) -> bool:
    """Whether the segment of a Matroska or WebM file reaches beyond the end of the file."""
    with open(path, "rb") as file:
        head = file.read(4096)
    start = head.find(_MATROSKA_SEGMENT) + 4
    if not head.startswith(_EBML_HEADER) or start < 4 or start >= len(head) or head[start] == 0:
        return False
    length = 9 - head[start].bit_length()
    segment = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
    unknown = segment == (1 << 7 * length) - 1  # a file that was streamed does not know its length
    return not unknown and start + length + segment > size
