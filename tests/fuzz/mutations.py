"""Ways to tamper with a video file: blind ones, ones that know the container's fields, ones that move packets."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import av

Bytes = bytearray
Mutation = Callable[[bytearray, random.Random], str]
"""Changes the file's bytes in place; says what it did."""

_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE)


def _place(data: bytearray, rng: random.Random) -> int:
    """A place in the file: anywhere, or near its start or end, where headers and indexes are."""
    size = len(data)
    low, high = rng.choice(((0, size), (0, size), (0, min(size, 4096)), (max(0, size - 4096), size)))
    return rng.randrange(low, high)


def _range(data: bytearray, rng: random.Random) -> slice:
    start = _place(data, rng)
    return slice(start, min(len(data), start + rng.choice((1, 4, 16, 188, 1024, 8192, len(data) // 5 + 1))))


def flip(data: bytearray, rng: random.Random) -> str:
    count = rng.choice((1, 1, 3, 10, 60))
    for _ in range(count):
        data[_place(data, rng)] ^= rng.randrange(1, 256)
    return f"{count} bytes flipped"


def blank(data: bytearray, rng: random.Random) -> str:
    part = _range(data, rng)
    data[part] = rng.choice((b"\0", b"\xff")) * (part.stop - part.start)
    return f"bytes {part.start} to {part.stop} blanked"


def drop(data: bytearray, rng: random.Random) -> str:
    part = _range(data, rng)
    del data[part]
    return f"bytes {part.start} to {part.stop} dropped"


def repeat(data: bytearray, rng: random.Random) -> str:
    part = _range(data, rng)
    data[part.stop : part.stop] = data[part]
    return f"bytes {part.start} to {part.stop} repeated"


def swap(data: bytearray, rng: random.Random) -> str:
    part = _range(data, rng)
    size = part.stop - part.start
    other = rng.randrange(max(1, len(data) - size))
    if abs(other - part.start) < size:
        return "nothing swapped"
    data[part], data[other : other + size] = data[other : other + size], data[part]
    return f"{size} bytes at {part.start} and {other} swapped"


def truncate(data: bytearray, rng: random.Random) -> str:
    end = rng.choice((rng.randrange(64, 2048), len(data) // 2, len(data) - rng.randrange(1, 200), _place(data, rng)))
    end = max(1, min(end, len(data) - 1))
    del data[end:]
    return f"cut at {end}"


def behead(data: bytearray, rng: random.Random) -> str:
    start = min(rng.choice((8, 188, 1000, len(data) // 3)), len(data) - 1)
    del data[:start]
    return f"the first {start} bytes dropped"


# -- fields of containers ---------------------------------------------------------------------------------------------

_MP4_BOXES = (
    *(b"stts", b"stts", b"ctts", b"elst", b"stsz", b"stsc", b"stco", b"stss", b"mdhd", b"mvhd", b"tkhd", b"stsd"),
    *(b"trun", b"tfhd", b"tfdt", b"trex", b"mdat", b"moov", b"avcC", b"hvcC", b"edts", b"hdlr"),
)
_EBML_IDS = (
    *(b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xa3", b"\xa0", b"\xa1", b"\xe7", b"\x2a\xd7\xb1", b"\x44\x89"),
    *(b"\x1c\x53\xbb\x6b", b"\x16\x54\xae\x6b", b"\xae", b"\xe0", b"\xb0", b"\xba", b"\x63\xa2", b"\x23\xe3\x83"),
)
_RIFF_IDS = (b"avih", b"strh", b"strf", b"idx1", b"movi", b"LIST", b"RIFF", b"00dc", b"01dc", b"indx", b"ix00")


def _occurrences(data: bytearray, mark: bytes) -> list[int]:
    found, place = [], data.find(mark)
    while place >= 0 and len(found) < 200:
        found.append(place)
        place = data.find(mark, place + 1)
    return found


def _set_number(data: bytearray, place: int, order: str, rng: random.Random) -> str:
    """Put another 32-bit number at ``place``: an extreme one, or one near what stands there."""
    if place < 0 or place + 4 > len(data):
        return "nothing set"
    (old,) = struct.unpack(f"{order}I", data[place : place + 4])
    near = (old + 1, max(0, old - 1), old * 2, old // 2, old ^ 1 << rng.randrange(32), rng.getrandbits(32))
    new = rng.choice((*_NUMBERS, *near)) & 0xFFFFFFFF
    data[place : place + 4] = struct.pack(f"{order}I", new)
    return f"{old} at {place} set to {new}"


def mp4_field(data: bytearray, rng: random.Random) -> str:
    boxes = [box for box in _MP4_BOXES if box in data]
    if not boxes:
        return flip(data, rng)
    box = rng.choice(boxes)
    start = rng.choice(_occurrences(data, box))
    size = int.from_bytes(data[max(0, start - 4) : start], "big")
    # the size before the name, the version and count behind it, or one of the entries
    offset = rng.choice((-4, 4, 8, 12, 16, 4 * rng.randrange(1, max(2, min(size, 4000) // 4))))
    return f"{box.decode()}: {_set_number(data, start + offset, '>', rng)}"


def ebml_field(data: bytearray, rng: random.Random) -> str:
    ids = [each for each in _EBML_IDS if each in data]
    if not ids:
        return flip(data, rng)
    mark = rng.choice(ids)
    start = rng.choice(_occurrences(data, mark)) + len(mark) + rng.choice((0, 0, 1, 2, 3))
    if start >= len(data):
        return "nothing set"
    old, data[start] = data[start], rng.choice((0, 1, 0x80, 0x81, 0xFF, 0x40, 0x08, rng.randrange(256)))
    return f"element {mark.hex()}: {old} at {start} set to {data[start]}"


def riff_field(data: bytearray, rng: random.Random) -> str:
    ids = [each for each in _RIFF_IDS if each in data]
    if not ids:
        return flip(data, rng)
    mark = rng.choice(ids)
    start = rng.choice(_occurrences(data, mark)) + 4 * rng.randrange(1, 14)
    return f"{mark.decode()}: {_set_number(data, start, '<', rng)}"


def ts_packets(data: bytearray, rng: random.Random) -> str:
    count = len(data) // 188
    if count < 4:
        return flip(data, rng)
    start, length = 188 * rng.randrange(count), 188 * rng.choice((1, 1, 5, 20))
    way = rng.choice(("dropped", "repeated", "moved", "of another program", "blanked"))
    part = bytes(data[start : start + length])
    if way == "repeated":
        data[start:start] = part
    elif way == "of another program":
        data[start + 2] ^= 1 << rng.randrange(8)
    elif way == "blanked":
        data[start + 4 : start + len(part)] = bytes(max(0, len(part) - 4))
    else:
        del data[start : start + length]
        if way == "moved":
            place = 188 * rng.randrange(len(data) // 188)
            data[place:place] = part
    return f"{len(part) // 188} packets at {start} {way}"


def flv_tag(data: bytearray, rng: random.Random) -> str:
    """A tag's size or time: its 11 bytes of header follow the size of the tag before."""
    starts, place = [], 13
    while place + 11 < len(data) and len(starts) < 300:
        starts.append(place)
        place += 15 + int.from_bytes(data[place + 1 : place + 4], "big")
    if not starts:
        return flip(data, rng)
    start = rng.choice(starts) + rng.randrange(8)
    old, data[start] = data[start], rng.randrange(256)
    return f"{old} at {start} set to {data[start]}"


FIELDS: dict[str, Mutation] = {
    **dict.fromkeys((".mp4", ".mov", ".3gp"), mp4_field),
    **dict.fromkeys((".mkv", ".webm"), ebml_field),
    ".avi": riff_field,
    **dict.fromkeys((".ts", ".m2ts"), ts_packets),
    ".flv": flv_tag,
}
BLIND: tuple[Mutation, ...] = (flip, flip, blank, drop, repeat, swap, truncate, behead)


# -- packets ----------------------------------------------------------------------------------------------------------


def packet_places(path: Path) -> list[tuple[int, int, bool]]:
    """(place in the file, size, whether a keyframe) of the video packets whose place is told."""
    with av.open(f"file:{path}") as container:
        stream = container.streams.best("video")
        packets = [(p.pos, p.size, p.is_keyframe) for p in container.demux(stream) if p.size]
    return [(place, size, key) for place, size, key in packets if place is not None and place >= 0 and size > 8]


def packet_bytes(path: Path, data: bytearray, rng: random.Random) -> str:
    """Damage inside one packet, more often than not that of a keyframe."""
    places = packet_places(path)
    keys = [each for each in places if each[2]]
    if not places:
        return flip(data, rng)
    start, size, key = rng.choice(keys if keys and rng.random() < 0.6 else places)
    low, high = start, min(len(data), start + size)
    if high - low < 2:
        return flip(data, rng)
    count = rng.choice((1, 4, 30))
    for _ in range(count):
        data[rng.randrange(low, high)] ^= rng.randrange(1, 256)
    return f"{count} bytes flipped in the {'key ' if key else ''}packet at {start}"


def remuxed(path: Path, rng: random.Random) -> str:
    """The file with packets lost, repeated, or exchanged, and an index that fits."""
    target = path.with_name(f"remuxed{path.suffix}")
    way = rng.choice(("lost", "lost", "repeated", "exchanged", "emptied"))
    try:
        with av.open(f"file:{path}") as source, av.open(f"file:{target}", "w") as output:
            video = source.streams.best("video")
            stream = output.add_stream_from_template(video)
            packets = [packet for packet in source.demux(video) if packet.size]
            chosen = set(rng.sample(range(len(packets)), min(len(packets), rng.choice((1, 2, 5)))))
            contents = [bytes(packet) for packet in packets]
            for place in chosen:
                other = rng.randrange(len(packets))
                if way == "exchanged":
                    contents[place], contents[other] = contents[other], contents[place]
                elif way == "repeated":
                    contents[place] = contents[place - 1]
                elif way == "emptied":
                    contents[place] = contents[place][: max(1, len(contents[place]) // 3)]
            for place, packet in enumerate(packets):
                if way == "lost" and place in chosen:
                    continue
                new = av.Packet(contents[place])
                new.pts, new.dts, new.time_base = packet.pts, packet.dts, packet.time_base
                new.duration, new.is_keyframe, new.stream = packet.duration, packet.is_keyframe, stream
                output.mux(new)
    except (av.error.FFmpegError, ValueError):
        target.unlink(missing_ok=True)
    if not target.exists():
        return "left as it is: cannot be copied"
    target.replace(path)
    return f"{len(chosen)} packets {way}"


# -- all --------------------------------------------------------------------------------------------------------------


def tamper(path: Path, other: Path, rng: random.Random) -> tuple[Path, str]:
    """Tamper with the film at ``path`` in one to three ways.

    Args:
        path: the film; changed in place.
        other: another film, to join or to take parts of.
        rng: decides.

    Returns:
        The path, which may have another suffix, and what was done.
    """
    done = []
    if rng.random() < 0.2:
        done.append(remuxed(path, rng))
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        done.append(packet_bytes(path, data, rng))
    for _ in range(rng.choice((0, 1, 1, 2)) or not done):
        field = FIELDS.get(path.suffix)
        mutation = field if field and rng.random() < 0.5 else rng.choice(BLIND)
        done.append(mutation(data, rng))
        if len(data) < 2:
            break
    if rng.random() < 0.06:
        data += other.read_bytes()
        done.append(f"joined with a {other.suffix[1:]} file")
    path.write_bytes(data)
    if rng.random() < 0.08:
        suffix = rng.choice((".mp4", ".mkv", ".avi", ".ts", ".txt", ".jpg", ".m3u8", ".gif", ""))
        path = path.rename(path.with_suffix(suffix))
        done.append(f"named {suffix or 'without a suffix'}")
    return path, ", ".join(done)
