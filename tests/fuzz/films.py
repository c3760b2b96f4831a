"""Films of many codecs and containers, each frame carrying its number.

The number stands in the top quarter of the upright picture: 12 cells side by side, white for bit b, the leftmost cell
bit 0. The rest of the picture moves, so that a decoder has something to refer to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from tests.video.clips import MATRICES, make_clip, with_first_frames_hidden, with_matrix

BITS = 12
SIZE = (192, 128)
FPS = 25


def numbered(number: int, width: int, height: int) -> np.ndarray:
    """uint8 ``[H, W, 3]``: the number in the top quarter, a moving pattern below."""
    y, x = np.mgrid[0:height, 0:width]
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = 128 + 90 * np.sin((x + 3 * number) / 17)
    image[..., 1] = 128 + 90 * np.cos((y - 2 * number) / 11)
    image[..., 2] = 60 + 120 * ((x // 16 + y // 16 + number // 5) % 2)
    for bit in range(BITS):
        left, right = width * bit // BITS, width * (bit + 1) // BITS
        image[: height // 4, left:right] = 235 if number >> bit & 1 else 16
    return image


@dataclass(frozen=True)
class Kind:
    """A way to make a film.

    Attributes:
        name: in words.
        suffix: of the file's name.
        make: writes the film to a path, with what the random generator decides, and returns the numbers that are
            shown; None where that is for the decoder to say.
    """

    name: str
    suffix: str
    make: Callable[[Path, random.Random], Sequence[int] | None]


@dataclass(frozen=True)
class Encoding:
    """Arguments of :func:`tests.video.clips.make_clip`."""

    codec: str
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    size: tuple[int, int] = SIZE
    gops: tuple[int, ...] = (6, 12, 25)
    container: str | None = None
    container_options: dict[str, str] = field(default_factory=dict)
    with_sound: bool = False


def encode(path: Path, encoding: Encoding, num_frames: int, gop: int, **settings: Any) -> Path:
    """A film whose frame i shows i (plus ``settings["first"]``)."""
    first = settings.pop("first", 0)
    turns = settings.pop("turns", 0)

    def draw(number: int, width: int, height: int) -> np.ndarray:
        if turns % 2:
            width, height = height, width
        return np.rot90(numbered(first + number, width, height), -turns).copy()

    return make_clip(
        path,
        num_frames,
        codec=encoding.codec,
        fps=FPS,
        gop=gop,
        size=encoding.size,
        pix_fmt=encoding.pix_fmt,
        options={"threads": "1", **encoding.options},
        container=encoding.container,
        container_options=encoding.container_options,
        with_sound=encoding.with_sound,
        draw=draw,
        **settings,
    )


def _plain(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    count = rng.choice((1, 30, 61, 75))
    encode(path, encoding, count, rng.choice(encoding.gops))
    return range(count)


def _variable(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    times = [0]
    for _ in range(39):
        times.append(times[-1] + rng.choice((20, 40, 40, 40, 90, 500)))
    encode(path, encoding, len(times), rng.choice(encoding.gops), times=times, time_base=Fraction(1, 1000))
    return range(len(times))


def _gaps(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    """Frames that start late and leave out some places of a constant rate."""
    times = sorted(rng.sample(range(7, 90), 40))
    encode(path, encoding, len(times), rng.choice(encoding.gops), times=times, time_base=Fraction(1, FPS))
    return range(len(times))


def _untimed(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    """Copied out of a bare stream: the packets are timed in the order of decoding."""
    bare = path.with_name(f"bare-{path.stem}.h264")
    encode(bare, encoding, 60, rng.choice(encoding.gops))
    with av.open(str(bare)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for place, packet in enumerate(p for p in source.demux(source.streams.video[0]) if p.size):
            packet.stream = stream
            packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, FPS), place, place, 1
            output.mux(packet)
    bare.unlink()
    return range(60)


def _cut_into(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int] | None:
    """A broadcast that was switched on in its midst: what is shown first is for the decoder to say."""
    data = encode(path, encoding, 75, 25).read_bytes()
    packets = len(data) // 188
    path.write_bytes(data[188 * rng.randrange(packets // 5, packets // 2) :])
    return None


def _last_held(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    encode(path.with_name(f"whole-{path.name}"), encoding, 12, 6)
    with av.open(str(path.with_name(f"whole-{path.name}"))) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(source.streams.video[0]) if packet.size]
        packets[-1].duration = round(rng.choice((3, 60)) / packets[-1].time_base)
        for packet in packets:
            packet.stream = stream
            output.mux(packet)
    path.with_name(f"whole-{path.name}").unlink()
    return range(12)


def _hidden(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    whole = encode(path.with_name(f"whole-{path.name}"), encoding, 60, 12)
    hidden = rng.choice((1, 12, 17, 33))
    with_first_frames_hidden(whole, path, hidden, fps=FPS)
    whole.unlink()
    return range(hidden, 60)


def _turned(encoding: Encoding, path: Path, rng: random.Random) -> Sequence[int]:
    kind, turns = rng.choice((("turn 90", 1), ("turn 180", 2), ("turn 270", 3)))
    whole = encode(path.with_name(f"whole-{path.name}"), encoding, 40, 12, turns=-turns)
    with_matrix(whole, path, MATRICES[kind])
    whole.unlink()
    return range(40)


def _joined(encoding: Encoding, path: Path, rng: random.Random, second: Encoding | None = None) -> Sequence[int]:
    gop = rng.choice(encoding.gops)
    data, numbers = b"", []
    for part, first, count in ((encoding, 0, 50), (second or encoding, 50, rng.choice((20, 50)))):
        data += encode(path, part, count, gop, first=first).read_bytes()
        numbers += range(first, first + count)
    path.write_bytes(data)
    return numbers


def _two_streams(codecs: tuple[str, str], path: Path, rng: random.Random) -> Sequence[int]:
    """A still or a small preview before the film."""
    still = rng.random() < 0.5
    with av.open(str(path), "w") as output:
        preview = output.add_stream(codecs[0], rate=FPS)
        preview.disposition = Disposition.metadata  # any but default
        preview.width, preview.height = 96, 64
        preview.pix_fmt = "yuvj420p" if codecs[0] == "mjpeg" else "yuv420p"
        film = output.add_stream(codecs[1], rate=FPS)
        film.width, film.height, film.pix_fmt, film.gop_size = *SIZE, "yuv420p", 12
        film.options = {"threads": "1", "bf": "2"}
        film.disposition = Disposition.default
        for number in range(50):
            for stream, shown in ((preview, 4000 + number), (film, number)):
                if stream is preview and still and number:
                    continue
                picture = numbered(shown, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                output.mux(stream.encode(frame))
        for stream in (preview, film):
            output.mux(stream.encode(None))
    return range(50)


def _x264(**options: str) -> Encoding:
    return Encoding("libx264", options={"preset": "veryfast", **{k.replace("_", "-"): v for k, v in options.items()}})


_H264 = {
    "H.264": _x264(bf="0"),
    "H.264, B-frames": _x264(bf="3", **{"b_pyramid": "normal"}),
    "H.264, open GOP": _x264(bf="3", x264_params="open-gop=1:bframes=3:scenecut=0"),
    "H.264, slices": _x264(bf="2", slices="4"),
    "H.264, CAVLC": _x264(bf="1", coder="cavlc"),
    "H.264, MBAFF": _x264(bf="2", x264_params="tff=1:bframes=2"),
    "H.264, intra refresh": _x264(bf="0", x264_params="intra-refresh=1:keyint=20"),
}
_X265 = {"preset": "ultrafast", "x265-params": "pools=none:frame-threads=1:log-level=none:bframes=4:b-pyramid=1"}
_HEVC = {
    "HEVC": Encoding("libx265", options={**_X265, "x265-params": _X265["x265-params"] + ":open-gop=0"}),
    "HEVC, open GOP": Encoding("libx265", options={**_X265, "x265-params": _X265["x265-params"] + ":open-gop=1"}),
}
_MPEG = {"bf": "2", "b": "900k"}
_VP9 = {"cpu-used": "8", "deadline": "realtime", "lag-in-frames": "12", "auto-alt-ref": "1", "b": "400k"}
_AV1 = {"preset": "12", "svtav1-params": "lp=1", "crf": "40"}


def _each(make: Any, encodings: dict[str, Encoding], where: dict[str, str]) -> list[Kind]:
    """Kinds by name of encoding and container."""
    return [
        Kind(f"{name} in {container}", suffix, partial(make, encoding))
        for name, encoding in encodings.items()
        for container, suffix in where.items()
    ]


def _with(encoding: Encoding, **changes: Any) -> Encoding:
    return Encoding(**{**vars(encoding), **changes})


def _kinds() -> list[Kind]:
    b_frames = {"H.264, B-frames": _H264["H.264, B-frames"]}
    no_b_frames = {"H.264": _H264["H.264"], "H.264, slices": _x264(bf="0", slices="4")}
    mpeg4 = {"MPEG-4": Encoding("mpeg4", options={"b": "900k"})}
    mpeg4_b = {"MPEG-4, B-frames": Encoding("mpeg4", options=_MPEG)}
    mpeg2 = {"MPEG-2": Encoding("mpeg2video", options=_MPEG)}
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    mjpeg = Encoding("mjpeg", "yuvj420p")
    h264_b = b_frames["H.264, B-frames"]
    return [
        *_each(_plain, _H264, {"MP4": ".mp4", "Matroska": ".mkv", "MPEG-TS": ".ts"}),
        *_each(_plain, no_b_frames, {"AVI": ".avi", "FLV": ".flv", "NUT": ".nut"}),
        *_each(_plain, b_frames, {"AVI": ".avi", "MOV": ".mov", "FLV": ".flv", "3GP": ".3gp", "M2TS": ".m2ts"}),
        *_each(_plain, b_frames, {"a bare stream": ".h264"}),
        *_each(_plain, {"H.264 and sound": _with(h264_b, with_sound=True)}, {"MP4": ".mp4", "TS": ".ts"}),
        *_each(
            _plain, {"H.264, index first": _with(h264_b, container_options={"movflags": "faststart"})}, {"MP4": ".mp4"}
        ),
        *_each(_plain, {"H.264, fragments": _with(h264_b, container_options=fragments)}, {"MP4": ".mp4"}),
        *_each(_plain, {"H.264, 10 bits": _with(_H264["H.264"], pix_fmt="yuv420p10le")}, {"MP4": ".mp4"}),
        *_each(_plain, _HEVC, {"MP4": ".mp4", "Matroska": ".mkv", "MPEG-TS": ".ts", "a bare stream": ".hevc"}),
        *_each(_plain, mpeg4, {"AVI": ".avi", "MP4": ".mp4", "Matroska": ".mkv"}),
        *_each(_plain, mpeg4_b, {"AVI": ".avi", "MP4": ".mp4", "NUT": ".nut"}),
        *_each(_plain, mpeg2, {"MPEG-PS": ".mpg", "VOB": ".vob", "MPEG-TS": ".ts", "Matroska": ".mkv", "MXF": ".mxf"}),
        *_each(_plain, mpeg2, {"a bare stream": ".m2v"}),
        *_each(_plain, {"MPEG-1": Encoding("mpeg1video", options=_MPEG)}, {"MPEG-PS": ".mpg"}),
        *_each(_plain, {"VP8": Encoding("libvpx", options=_VP9)}, {"WebM": ".webm", "IVF": ".ivf"}),
        *_each(_plain, {"VP9": Encoding("libvpx-vp9", options=_VP9)}, {"WebM": ".webm", "MP4": ".mp4", "IVF": ".ivf"}),
        *_each(
            _plain, {"AV1": Encoding("libsvtav1", options=_AV1)}, {"MP4": ".mp4", "Matroska": ".mkv", "IVF": ".ivf"}
        ),
        *_each(
            _plain, {"MJPEG": Encoding("mjpeg", "yuvj420p")}, {"AVI": ".avi", "MOV": ".mov", "a bare stream": ".mjpeg"}
        ),
        *_each(_plain, {"GIF": Encoding("gif", "rgb8")}, {"GIF": ".gif"}),
        *_each(_plain, {"APNG": Encoding("apng", "rgb24")}, {"APNG": ".apng"}),
        *_each(_plain, {"Sorenson": Encoding("flv", options={"b": "900k"})}, {"FLV": ".flv"}),
        *_each(_plain, {"WMV 8": Encoding("wmv2", options={"b": "900k"})}, {"ASF": ".wmv", "AVI": ".avi"}),
        *_each(_plain, {"MS MPEG-4": Encoding("msmpeg4v2", options={"b": "900k"})}, {"AVI": ".avi"}),
        *_each(_plain, {"H.263": Encoding("h263", options={"b": "900k"}, size=(176, 144))}, {"3GP": ".3gp"}),
        *_each(_plain, {"ProRes": Encoding("prores_ks", "yuv422p10le")}, {"MOV": ".mov"}),
        *_each(_plain, {"FFV1": Encoding("ffv1")}, {"Matroska": ".mkv", "AVI": ".avi"}),
        *_each(_plain, {"raw": Encoding("rawvideo", gops=(1,))}, {"AVI": ".avi", "NUT": ".nut"}),
        *_each(_plain, {"PNG": Encoding("png", "rgb24")}, {"MOV": ".mov"}),
        *_each(_plain, {"QuickTime Animation": Encoding("qtrle", "rgb24")}, {"MOV": ".mov"}),
        *_each(_plain, {"JPEG 2000": Encoding("jpeg2000", "yuv420p")}, {"MXF": ".mxf"}),
        *_each(
            _variable,
            {"variable rate": h264_b, "variable rate, HEVC": _HEVC["HEVC"]},
            {"MP4": ".mp4", "Matroska": ".mkv"},
        ),
        *_each(_variable, {"variable rate": Encoding("gif", "rgb8")}, {"GIF": ".gif"}),
        *_each(_last_held, {"last frame held": _H264["H.264"]}, {"MP4": ".mp4", "Matroska": ".mkv"}),
        *_each(_hidden, {"edit list": h264_b, "edit list, MPEG-4": mpeg4["MPEG-4"]}, {"MP4": ".mp4"}),
        *_each(_turned, {"turned": h264_b}, {"MP4": ".mp4"}),
        *_each(_joined, {"joined": h264_b, "joined, MPEG-2": mpeg2["MPEG-2"]}, {"MPEG-TS": ".ts"}),
        *_each(_joined, {"joined": mpeg2["MPEG-2"]}, {"MPEG-PS": ".mpg"}),
        *_each(_joined, {"joined": h264_b}, {"a bare stream": ".h264"}),
        *_each(_gaps, {"gaps": h264_b}, {"MP4": ".mp4", "Matroska": ".mkv", "MPEG-TS": ".ts"}),
        *_each(_gaps, {"gaps, MPEG-4": mpeg4["MPEG-4"], "gaps, MJPEG": mjpeg}, {"AVI": ".avi", "MOV": ".mov"}),
        *_each(_untimed, {"copied from a bare stream": h264_b}, {"MP4": ".mp4", "Matroska": ".mkv", "AVI": ".avi"}),
        *_each(_cut_into, {"cut into": h264_b, "cut into, HEVC": _HEVC["HEVC, open GOP"]}, {"MPEG-TS": ".ts"}),
        *_each(_cut_into, {"cut into, MPEG-2": mpeg2["MPEG-2"]}, {"MPEG-TS": ".ts"}),
        *_each(partial(_joined, second=_with(h264_b, size=(320, 180))), {"two sizes": h264_b}, {"MPEG-TS": ".ts"}),
        *_each(_plain, {"odd size": _with(h264_b, size=(110, 78))}, {"MP4": ".mp4", "AVI": ".avi"}),
        *_each(_plain, {"4:4:4": _with(h264_b, pix_fmt="yuv444p", size=(111, 77))}, {"Matroska": ".mkv"}),
        *_each(_plain, {"grey": Encoding("ffv1", "gray")}, {"Matroska": ".mkv"}),
        Kind("a still or preview first in MP4", ".mp4", partial(_two_streams, ("mjpeg", "libx264"))),
        Kind("a still or preview first in Matroska", ".mkv", partial(_two_streams, ("mjpeg", "mpeg4"))),
        Kind("a still or preview first in MOV", ".mov", partial(_two_streams, ("mpeg4", "libx264"))),
    ]


KINDS = _kinds()
