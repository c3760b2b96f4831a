"""The index from a header against the index from the packets, and headers that do not tell enough."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import av.stream
import numpy as np
import pytest

from tam_plugin.video import probe_video
from tam_plugin.video.container import open_container
from tam_plugin.video.header import read_header
from tam_plugin.video.in_order import scan_frames
from tam_plugin.video.index import FrameIndex
from tam_plugin.video.mp4 import composition_offsets

from .clips import make_clip, with_first_frames_hidden

TOLD: dict[str, dict] = {
    "b-frames": {"name": "a.mp4"},
    "header first": {"name": "a.mp4", "container_options": {"movflags": "faststart"}},
    "negative offsets": {"name": "a.mp4", "container_options": {"movflags": "negative_cts_offsets"}},
    "mov": {"name": "a.mov"},
    "no b-frames": {"name": "a.mp4", "options": {"bf": "0"}},
    "hevc": {"name": "a.mp4", "codec": "libx265", "options": {"x265-params": "log-level=none"}},
    "open groups": {"name": "a.mp4", "options": {"x264-params": "open-gop=1:bframes=5:scenecut=0"}},
    "sound": {"name": "a.mp4", "with_sound": True},
    "variable rate": {"name": "a.mp4", "times": [n * n * 9 for n in range(60)], "time_base": Fraction(1, 1000)},
    "one frame": {"name": "a.mp4", "num_frames": 1},
}


def indices_of(path: Path) -> tuple[FrameIndex | None, FrameIndex]:
    """The index from the header, if it tells one, and the one from the packets."""
    with open_container(str(path)) as opened:
        header, packets = read_header(str(path), opened)
        return header.index, packets.index()


needs_table = pytest.mark.skipif(
    not hasattr(av.stream.Stream, "index_entries"), reason="this PyAV (before 17) does not show the header's table"
)


@needs_table
@pytest.mark.parametrize("kind", TOLD)
def test_header_tells_what_the_packets_tell(kind: str, tmp_path: Path) -> None:
    settings = dict(TOLD[kind])
    path = make_clip(tmp_path / settings.pop("name"), **settings)
    told, counted = indices_of(path)
    assert told is not None
    for name in ("pts", "dts", "is_key", "shown"):
        assert np.array_equal(getattr(told, name), getattr(counted, name))
    assert told.timestamps_s.tolist() == counted.timestamps_s.tolist()
    assert probe_video(path).counted is False


@needs_table
def test_frames_data_is_not_read(tmp_path: Path) -> None:
    """Only the first frame is looked at: the rest may be anything."""
    clip = make_clip(tmp_path / "whole.mp4")
    data = bytearray(clip.read_bytes())
    start, end = len(data) // 2, data.index(b"moov") - 4
    data[start:end] = bytes(end - start)
    (tmp_path / "a.mp4").write_bytes(data)
    damaged, whole = probe_video(tmp_path / "a.mp4"), probe_video(clip)
    assert (damaged.num_frames, damaged.duration_s, damaged.fps) == (whole.num_frames, whole.duration_s, whole.fps)


@pytest.mark.parametrize("how", ["hidden frames", "fragments", "another container"])
def test_headers_that_do_not_tell_all_are_not_taken(clip: Path, tmp_path: Path, how: str) -> None:
    if how == "hidden frames":
        path = with_first_frames_hidden(clip, tmp_path / "a.mp4", 7)
    elif how == "fragments":
        path = make_clip(tmp_path / "a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    else:
        path = make_clip(tmp_path / "a.avi", codec="mpeg4")
    assert indices_of(path)[0] is None
    assert probe_video(path).counted is True


def test_a_wrong_table_of_offsets_is_found_out(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    table = data.index(b"ctts") + 12
    count, offset = struct.unpack(">Ii", data[table : table + 8])
    assert count == 1
    data[table : table + 8] = struct.pack(">Ii", 3, offset)  # more frames than there are
    (tmp_path / "a.mp4").write_bytes(data)
    assert composition_offsets(str(clip), 1, 60) is not None
    assert composition_offsets(str(tmp_path / "a.mp4"), 1, 60) is None
    assert indices_of(tmp_path / "a.mp4")[0] is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\0\x08free",
        b"\0\0\0\x02moov",
        b"\0\0\0\x01moov\0\0\0\0\0\0\0\x10",
        b"\0\0\0\x18moov\0\0\0\x10trak\0\0\0\x02tkhd",
        b"\0\0\0\x18moov\0\0\0\x10trak\0\0\0\x08tkhd",
    ],
)
def test_other_files_have_no_offsets(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert composition_offsets(str(tmp_path / "a"), 1, 4) is None


def test_counting_by_decoding_agrees(clip: Path) -> None:
    _, by_packets = indices_of(clip)
    by_frames = scan_frames(str(clip))
    assert by_frames.timestamps_s == pytest.approx(by_packets.timestamps_s)
    assert by_frames.is_keyframe.tolist() == by_packets.is_keyframe.tolist()
