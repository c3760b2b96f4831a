"""Files cut short: what the headers promise against what the file holds, read without decoding."""

from __future__ import annotations

import os
import struct
from typing import Any, BinaryIO

from tam_plugin.errors import InputError
from tam_plugin.video.container import OpenContainer, one_line, open_container

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_MATROSKA_SEGMENT = b"\x18\x53\x80\x67"
_MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp")
_MP4_PAYLOAD = (b"mdat", b"moov", b"moof")
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def header_entries(stream: Any) -> Any | None:
    """The container's own table of all frames (MP4 and its kin), or None where it has none or only a part.

    PyAV shows it from version 17 on.
    """
    entries = getattr(stream, "index_entries", None)
    if entries is None or stream.frames <= 0 or len(entries) != stream.frames:
        return None
    return entries


def require_whole(path: str, opened: OpenContainer) -> None:
    """Refuse a file that ends before its frames do, where its container shows it.

    MP4, MOV, Matroska, WebM, AVI, ASF and GIF do; an AVI that has lost nothing but its index at the end is whole.
    Transport streams and their like tell no length: what was cut off their end cannot be known.

    Raises:
        InputError: the file was cut short; the message says how many frames are left.
    """
    entries = header_entries(opened.stream)
    size = os.path.getsize(path)
    if entries is not None:
        last = entries[len(entries) - 1]
        if last.pos + last.size <= size:
            return
        left = sum(entry.pos + entry.size <= size for entry in entries)
        raise cut_short(path, left, len(entries))
    if not _is_cut(path, size):
        return
    with open_container(path) as again:  # so that nothing of ``opened`` is read
        left = sum(not packet.is_corrupt for packet in again.packets())
        format_name = again.container.format.name
        promised = again.stream.frames if format_name != "gif" else 0  # those of a GIF were counted, not promised
    if format_name != "avi" or not promised or left < promised:
        raise cut_short(path, left, promised or None)


def _is_cut(path: str, size: int) -> bool:
    """Whether the file is of a format that tells its length, and shorter than that."""
    with open(path, "rb") as file:
        for is_cut in (_mp4_is_cut, _matroska_is_cut, _avi_is_cut, _asf_is_cut, _gif_is_cut):
            file.seek(0)
            if is_cut(file, size):
                return True
    return False


def cut_short(path: str, readable: int, promised: int | None = None) -> InputError:
    """The error for a file that ends before its frames do."""
    share = f"{readable} of {promised} frames" if promised is not None else f"{readable} frames"
    return InputError(
        f"video {one_line(path)}: the file is cut short or damaged, only {share} can be read; get a whole copy of it"
    )


def _mp4_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether a box of an MP4 or MOV file that holds a header or frames reaches beyond the end of the file."""
    place = 0
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


def _matroska_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether the segment of a Matroska or WebM file reaches beyond the end of the file."""
    head = file.read(4096)
    start = head.find(_MATROSKA_SEGMENT) + 4
    if not head.startswith(_EBML_HEADER) or start < 4 or start >= len(head) or head[start] == 0:
        return False
    length = 9 - head[start].bit_length()
    segment = int.from_bytes(head[start : start + length], "big") & ((1 << 7 * length) - 1)
    unknown = segment == (1 << 7 * length) - 1  # a file that was streamed does not know its length
    return not unknown and start + length + segment > size


def _avi_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether a RIFF chunk of an AVI file (large ones have several) reaches beyond the end of the file."""
    place = 0
    while len(head := file.read(12)) == 12:
        kind, length, form = struct.unpack("<4sI4s", head)
        if kind != b"RIFF" or form not in (b"AVI ", b"AVIX"):
            return False
        if length in (0, (1 << 32) - 1):  # written to a pipe: the length was never filled in
            return False
        place += 8 + length + length % 2
        if place > size + 1:  # some writers leave the last byte of padding out
            return True
        file.seek(place)
    return False


def _asf_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether the file size that an ASF or WMV file's header tells is more than the file has."""
    head = file.read(1 << 16)
    start = head.find(_ASF_FILE_PROPERTIES)
    if not head.startswith(_ASF_HEADER) or start < 0 or start + 92 > len(head):
        return False
    told, is_broadcast = int.from_bytes(head[start + 40 : start + 48], "little"), head[start + 88] & 1
    return not is_broadcast and told > size


def _gif_is_cut(file: BinaryIO, size: int) -> bool:
    """Whether a GIF ends before its trailer."""
    head = file.read(13)
    if len(head) < 13 or head[:6] not in (b"GIF87a", b"GIF89a"):
        return False
    place = 13 + _colours(head[10])
    while place < size:
        file.seek(place)
        block = file.read(11)
        if block[:1] == b"\x3b":
            return False
        if block[:1] == b"\x21":
            place += 2
        elif block[:1] == b"\x2c" and len(block) >= 10:
            place += 11 + _colours(block[9])
        else:
            return block[:1] == b"\x2c"  # otherwise no GIF that is known here: libav may know better
        place = _behind_sub_blocks(file, place)
    return True


def _colours(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _behind_sub_blocks(file: BinaryIO, place: int) -> int:
    file.seek(place)
    while length := file.read(1):
        place += 1 + length[0]
        if length[0] == 0:
            return place
        file.seek(place)
    return place + 1
