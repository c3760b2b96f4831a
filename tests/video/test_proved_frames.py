"""Readers prove their frames: files whose times, streams or contents are not what they seem.

What players show is a plain decode of the stream that libav prefers, in the decoder's own order.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tam_plugin.errors import InputError, TamError
from tam_plugin.video import probe_video, reader_pyav, sample_frames
from tam_plugin.video.reader import check_backend

from .clips import make_clip, picture, shown_frames

BACKENDS = ("pyav", "decord", "torchcodec")
PYRAMID = {"x264-params": "bframes=3:b-pyramid=normal:scenecut=0"}


def without_composition_times(path: Path) -> Path:
    """H.264 with B-frames whose MP4 was written from a bare stream: each frame is said to be shown as it is decoded."""
    whole = make_clip(path.with_suffix(".whole.mp4"), options=PYRAMID)
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.stream = stream
            packet.pts = packet.dts = 512 * number
            target.mux(packet)
    return path


def joined(path: Path) -> Path:
    """Two recordings one after the other, whose times start again."""
    parts = [make_clip(path.with_suffix(f".{n}.ts"), 30, options={"x264-params": f"bframes={n}"}) for n in (2, 0)]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def two_streams(path: Path, *, preview: str) -> Path:
    """A preview first, then the film, which is the one marked as default."""
    film = make_clip(path.with_suffix(".film.mp4"))
    other = make_clip(
        path.with_suffix(".preview.mp4"),
        60 if preview == "libx264" else 1,
        codec=preview,
        size=(80, 48),
        pix_fmt="yuv420p" if preview == "libx264" else "yuvj420p",
    )
    with av.open(str(path), "w") as target, av.open(str(other)) as first, av.open(str(film)) as second:
        streams = [target.add_stream_from_template(source.streams.video[0]) for source in (first, second)]
        streams[0].disposition, streams[1].disposition = av.stream.Disposition(0), av.stream.Disposition.default
        for stream, source in zip(streams, (first, second), strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    target.mux(packet)
    return path


FILES = {
    "b-frames in an avi": lambda folder: make_clip(folder / "a.avi", options=PYRAMID),
    "mpeg-4 b-frames in an avi": lambda folder: make_clip(folder / "a.avi", codec="mpeg4", options={"bf": "2"}),
    "mp4 from a bare stream": lambda folder: without_composition_times(folder / "a.mp4"),
    "hevc pyramid": lambda folder: make_clip(
        folder / "a.mkv", codec="libx265", options={"x265-params": "log-level=none:bframes=4:b-pyramid=1"}
    ),
    "transport stream": lambda folder: make_clip(folder / "a.ts", options=PYRAMID),
    "joined transport streams": lambda folder: joined(folder / "a.ts"),
    "program stream": lambda folder: make_clip(folder / "a.mpg", codec="mpeg2video", options={"bf": "2"}),
    "a still before the film": lambda folder: two_streams(folder / "a.mp4", preview="mjpeg"),
    "a preview before the film": lambda folder: two_streams(folder / "a.mp4", preview="libx264"),
}


@pytest.fixture(scope="module", params=FILES)
def odd(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file, and what players show of it."""
    path = FILES[request.param](tmp_path_factory.mktemp("odd"))
    with av.open(str(path)) as container:
        return path, np.stack([f.to_ndarray(format="rgb24") for f in container.decode(container.streams.best("video"))])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wanted", [7, 60])
def test_every_reader_gives_what_players_show_or_refuses(
    odd: tuple[Path, np.ndarray], backend: str, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, every = odd
    monkeypatch.setattr(reader_pyav, "_READ_ON_PACKETS", 0)  # the clips are too short for a seek to pay
    try:
        check_backend(backend)
    except TamError as error:
        pytest.skip(str(error))
    try:
        sampled = sample_frames(path, wanted, backend=backend)
    except InputError as error:
        assert backend != "pyav"
        assert "use backend 'pyav'" in str(error)
        return
    assert sampled.info.num_frames == len(every)
    places = np.linspace(0, len(every) - 1, min(wanted, len(every)), dtype=int)
    assert not set(places.tolist()) - set(sampled.indices.tolist()) - set(sampled.damaged_frames)
    whole = ~np.isin(sampled.indices, sampled.damaged_frames)
    assert whole.mean() > 0.9
    assert np.array_equal(sampled.frames[whole], every[sampled.indices][whole])
    assert (np.diff(sampled.timestamps_s) > 0).all()
    assert sampled.info.duration_s == pytest.approx(len(every) / 25, abs=0.05)
    assert replace(probe_video(path), counted=True) == replace(sampled.info, counted=True)


def test_wrong_times_in_the_middle_are_found_where_frames_are_read(tmp_path: Path) -> None:
    """The first pictures of a file are all decoded, so that a wrong order of times shows."""
    path = make_clip(tmp_path / "a.mp4", options=PYRAMID)
    data = bytearray(path.read_bytes())
    table = data.index(b"ctts") + 8
    runs = struct.unpack(">I", data[table : table + 4])[0]
    offsets = [struct.unpack(">I", data[table + 8 * run + 8 : table + 8 * run + 12])[0] for run in range(runs)]
    largest = max(offsets)
    for run, offset in enumerate(offsets):  # frames that are shown late are said to be shown early, and the reverse
        struct.pack_into(">I", data, table + 8 * run + 8, largest - offset)
    path.write_bytes(data)
    every, _ = shown_frames(path)
    sampled = sample_frames(path, len(every))
    assert sampled.info.num_frames == len(every)
    assert np.array_equal(sampled.frames, every)


def test_pieces_that_follow_each_other_keep_their_own_times(tmp_path: Path) -> None:
    path = joined(tmp_path / "a.ts")
    sampled = sample_frames(path, 60)
    assert sampled.timestamps_s == pytest.approx(np.arange(60) / 25, abs=0.041)
    assert sampled.info.duration_s == pytest.approx(2.4, abs=0.041)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv", "a.gif"])
def test_the_last_picture_stands_as_long_as_it_is_said_to(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    codec, pix_fmt = ("gif", "rgb8") if name.endswith("gif") else ("libx264", "yuv420p")
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=100)
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.options = {} if codec == "gif" else {"bf": "0"}
        stream.codec_context.time_base = Fraction(1, 100)
        packets = []
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture(number, 96, 64), format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = 20 * number, Fraction(1, 100)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            packet.duration = 800 if number == 4 else 20
            output.mux(packet)
    info = probe_video(path)
    assert info.num_frames == 5
    assert info.duration_s == pytest.approx(8.8, abs=0.02)
    assert sample_frames(path, 3).info == info


class TestDamage:
    """Bytes of a film are overwritten at its head, in a keyframe, in the middle and at its tail."""

    @pytest.fixture(scope="class", params=["h264", "mpeg4"])
    def film(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
        folder = tmp_path_factory.mktemp("damage")
        codec = "libx264" if request.param == "h264" else "mpeg4"
        options = {"sc_threshold": "0"} if codec == "libx264" else {}
        path = make_clip(folder / "a.mkv", 96, codec=codec, gop=12, options=options)
        return path, shown_frames(path)[0]

    @pytest.mark.parametrize("packet", [0, 3, 36, 41, 95])
    def test_damaged_frames_are_replaced_and_named(
        self, film: tuple[Path, np.ndarray], packet: int, tmp_path: Path
    ) -> None:
        path, every = film
        damaged = tmp_path / "damaged.mkv"
        damaged.write_bytes(overwritten(path, packet))
        sampled = sample_frames(damaged, 24, max_damaged=1.0)
        # what is not named is whole, whatever frame stands for a damaged one
        whole = ~np.isin(sampled.indices, sampled.damaged_frames)
        # a film without its first keyframe starts at the second one, for players too
        lost = len(every) - sampled.info.num_frames
        assert lost in (0, 12) if packet == 0 else lost == 0
        assert np.array_equal(sampled.frames[whole], every[lost + sampled.indices[whole]])
        assert (np.diff(sampled.indices) > 0).all()
        group = range(packet // 12 * 12, packet // 12 * 12 + 12)
        assert set(sampled.damaged_frames) <= set(group)
        if packet != 95 and not lost:  # the frame of the last packet is not among the samples of every codec
            assert sampled.damaged_frames

    def test_too_much_damage_refuses_the_video(self, film: tuple[Path, np.ndarray], tmp_path: Path) -> None:
        path, _ = film
        content = path
        for packet in (0, 12, 24, 36, 48):
            (tmp_path / "a.mkv").write_bytes(overwritten(content, packet))
            content = tmp_path / "a.mkv"
        with pytest.raises(InputError, match=r"of the 24 frames asked for are damaged; at most a share of 0\.25"):
            sample_frames(content, 24)
        assert sample_frames(content, 24, max_damaged=1).damaged_frames


def overwritten(path: Path, number: int) -> bytes:
    """The file with the inside of one packet's data replaced by noise."""
    with av.open(str(path)) as container:
        content = bytes([p for p in container.demux(video=0) if p.size][number])
    data = path.read_bytes()
    place = data.index(content)
    start, end = len(content) // 8, max(len(content) // 8 + 1, len(content) * 7 // 8)
    noise = np.random.default_rng(number).integers(0, 256, end - start, np.uint8).tobytes()
    return data[: place + start] + noise + data[place + end :]


class TestStrangers:
    """Files that name other files, and names that look like addresses."""

    @pytest.mark.parametrize(
        "name, content",
        [
            ("a.mp4", "ffconcat version 1.0\nfile '{}'\n"),
            ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{}\n#EXT-X-ENDLIST\n"),
            ("a.mpd", "<MPD type='static'><Period><AdaptationSet><BaseURL>{}</BaseURL></AdaptationSet></Period></MPD>"),
        ],
    )
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_lists_of_other_files_are_refused(
        self, clip: Path, tmp_path: Path, name: str, content: str, backend: str
    ) -> None:
        try:
            check_backend(backend)
        except TamError as error:
            pytest.skip(str(error))
        (tmp_path / name).write_text(content.format(clip))
        with pytest.raises(InputError, match="cannot be opened as a video"):
            sample_frames(tmp_path / name, 4, backend=backend)

    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("name", ["http:a.mp4", "pipe:0", "data:,a", "crypto:a.mp4", "a%d.mp4", "concat:a|b"])
    def test_a_name_is_a_name(
        self, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, name: str
    ) -> None:
        try:
            check_backend(backend)
        except TamError as error:
            pytest.skip(str(error))
        os.link(clip, tmp_path / name)
        monkeypatch.chdir(tmp_path)
        assert np.array_equal(sample_frames(name, 4, backend=backend).frames, sample_frames(clip, 4).frames)

    def test_pictures_that_nobody_can_hold_are_refused(self, tmp_path: Path) -> None:
        path = make_clip(tmp_path / "a.gif", 3, codec="gif", pix_fmt="rgb8")
        data = bytearray(path.read_bytes())
        data[6:10] = struct.pack("<HH", 60_000, 60_000)
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"60000×60000|cannot be opened|none of its frames"):
            sample_frames(path, 2)


def test_side_data_without_a_name_does_not_hide_the_turn(tmp_path: Path, shared_odd: Path) -> None:
    sampled = sample_frames(shared_odd / "cam_exif.mov", 5)
    assert sampled.indices.tolist() == [0, 4, 9, 14, 19]


@pytest.fixture(scope="session")
def shared_odd() -> Path:
    """Small odd files with numbered frames, where they are at hand."""
    root = Path(os.environ.get("TAM_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    folder = root / "videos" / "odd"
    if not (folder / "truth.json").exists():
        pytest.skip(f"no odd videos in {folder}; set TAM_SHARED_DATA to the folder that holds videos/odd")
    return folder


def numbers(frames: np.ndarray) -> list[int]:
    """The number that each picture carries: the top quarter holds 12 cells, the leftmost is bit 0."""
    width, height = frames.shape[2], frames.shape[1]
    cells = frames[:, 4 : height // 4 - 4, :].mean((1, 3)).reshape(len(frames), 12, width // 12)[:, :, 3:-3].mean(2)
    return ((cells > 125) << np.arange(12)).sum(1).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_files_show_their_numbers(shared_odd: Path, backend: str) -> None:
    try:
        check_backend(backend)
    except TamError as error:
        pytest.skip(str(error))
    for name, truth in json.loads((shared_odd / "truth.json").read_text()).items():
        for wanted in (7, 64):
            try:
                sampled = sample_frames(shared_odd / name, wanted, backend=backend)
            except InputError as error:
                assert backend != "pyav" and "use backend 'pyav'" in str(error)
                continue
            assert numbers(sampled.frames) == [truth["numbers"][place] for place in sampled.indices]
            assert sampled.info.num_frames == len(truth["numbers"])
            assert sampled.info.duration_s == pytest.approx(truth["duration_s"], abs=0.02)
