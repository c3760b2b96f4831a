"""The readers against each other and against the host's own calls; sizes, snapping, memory, threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_plugin.budget import TokenLayout
from tam_plugin.errors import InputError, TamError
from tam_plugin.video import available_backends, probe_video, reader_pyav, sample_frames
from tam_plugin.video.reader import check_backend

from .clips import HEIGHT, WIDTH, make_clip, shown_frames, with_first_frames_hidden, with_matrix

CLIPS: dict[str, dict] = {
    "b-frames": {"name": "a.mp4"},
    "long groups": {"name": "a.mp4", "gop": 100, "options": {"sc_threshold": "0"}},
    "mkv": {"name": "a.mkv"},
    "4:4:4": {"name": "a.mp4", "pix_fmt": "yuv444p"},
    "full range": {"name": "a.mp4", "pix_fmt": "yuvj420p"},
    "bt709": {"name": "a.mp4", "options": {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}},
    "bt709, full range": {
        "name": "a.mp4",
        "pix_fmt": "yuvj420p",
        "options": {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"},
    },
    "sides that are no multiple of 16": {"name": "a.mp4", "size": (150, 98)},
    "mpeg4": {"name": "a.avi", "codec": "mpeg4"},
    "vp9": {"name": "a.webm", "codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
}


def host_frames(path: Path, wanted: int) -> np.ndarray:
    """What LLaVA-NeXT's process_video_with_decord returns for force_sample."""
    decord = pytest.importorskip("decord")
    reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=1)
    return reader.get_batch(np.linspace(0, len(reader) - 1, wanted, dtype=int).tolist()).asnumpy()


@pytest.mark.parametrize("kind", CLIPS)
@pytest.mark.parametrize("backend", ["pyav", "decord", "torchcodec"])
def test_every_reader_gives_the_hosts_pixels(kind: str, backend: str, tmp_path: Path) -> None:
    skip_without(backend)
    settings = dict(CLIPS[kind])
    path = make_clip(tmp_path / settings.pop("name"), **settings)
    sampled = sample_frames(path, 13, backend=backend)
    assert sampled.backend == backend
    assert np.array_equal(sampled.frames, host_frames(path, 13))


@pytest.mark.parametrize("wanted", [1, 8, 64])
def test_real_videos_give_the_hosts_pixels_and_times(real_videos: list[Path], wanted: int) -> None:
    for path in real_videos:
        sampled = sample_frames(path, wanted)
        info = sampled.info
        assert np.array_equal(sampled.frames, host_frames(path, wanted))
        assert sampled.timestamps_s == pytest.approx(sampled.indices / info.fps)
        assert info.duration_s == pytest.approx(info.num_frames / info.fps)
        assert probe_video(path) == info


def skip_without(backend: str) -> None:
    try:
        check_backend(backend)
    except TamError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
@pytest.mark.parametrize("turn", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_every_reader_turns_frames_upright(
    clip: Path, tmp_path: Path, backend: str, turn: tuple[int, int, int, int]
) -> None:
    skip_without(backend)
    path = with_matrix(clip, tmp_path / "turned.mp4", turn)
    ours, theirs = sample_frames(path, 5), sample_frames(path, 5, backend=backend)
    assert np.array_equal(ours.frames, theirs.frames)
    assert sample_frames(path, 5, backend=backend, size=50).frames.shape == (5, 50, 50, 3)


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_libraries_that_number_frames_differently_are_refused(clip: Path, tmp_path: Path, backend: str) -> None:
    """What an edit list hides, some libraries count: never another frame than the one asked for."""
    skip_without(backend)
    path = with_first_frames_hidden(clip, tmp_path / "edited.mp4", 17)
    every, _ = shown_frames(path)
    try:
        sampled = sample_frames(path, 6, backend=backend)
    except InputError as error:
        assert "use backend 'pyav'" in str(error) or "try backend 'pyav'" in str(error)
    else:
        assert np.array_equal(sampled.frames, every[sampled.indices])


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_a_library_that_cannot_read_the_file_says_so(tmp_path: Path, backend: str) -> None:
    skip_without(backend)
    path = make_clip(tmp_path / "a.gif", 8, codec="gif", pix_fmt="rgb8")
    try:
        sampled = sample_frames(path, 3, backend=backend)
    except InputError as error:
        assert "pyav" in str(error) and "\n" not in str(error)
    else:
        assert sampled.frames.shape == (3, HEIGHT, WIDTH, 3)


def test_auto_is_an_installed_reader() -> None:
    assert check_backend("auto") == available_backends()[0]


def test_a_budget_or_a_number(clip: Path) -> None:
    by_budget = sample_frames(clip, TokenLayout().budget(6, 2))
    assert np.array_equal(by_budget.frames, sample_frames(clip, 6).frames)
    assert len(by_budget) == 6
    assert len(sample_frames(clip, 500)) == 60


def test_snapped_frames_are_the_keyframes_that_they_say_they_are(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", gop=10, options={"sc_threshold": "0"})
    every, times = shown_frames(path)
    snapped = sample_frames(path, 5, snap_to_keyframes=True)
    # samples at 0, 14, 29, 44, 59; keyframes at 0, 10, 20, … 50; the last one is too far from any
    assert snapped.indices.tolist() == [0, 10, 30, 40, 59]
    assert snapped.snapped == 3
    assert np.array_equal(snapped.frames, every[snapped.indices])
    assert snapped.timestamps_s == pytest.approx([times[i] for i in snapped.indices])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("gop", [1, 7, 1000])
def test_threads_change_nothing(tmp_path: Path, threads: int, gop: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_pyav, "_READ_ON_PACKETS", 3)
    path = make_clip(tmp_path / "a.mp4", gop=gop, options={"sc_threshold": "0"})
    every, _ = shown_frames(path)
    sampled = sample_frames(path, 17, num_threads=threads)
    assert np.array_equal(sampled.frames, every[sampled.indices])


@pytest.mark.parametrize("backend", ["pyav", "decord", "torchcodec"])
@pytest.mark.parametrize(
    "size, expected", [(80, (80, 80)), ((100, 50), (100, 50)), (1000, (WIDTH, HEIGHT)), ((64, 999), (64, HEIGHT))]
)
def test_frames_come_out_at_most_at_the_size_asked_for(
    clip: Path, backend: str, size: int | tuple[int, int], expected: tuple[int, int]
) -> None:
    skip_without(backend)
    native = sample_frames(clip, 4).frames
    scaled = sample_frames(clip, 4, backend=backend, size=size).frames
    assert scaled.shape == (4, expected[1], expected[0], 3)
    by_pillow = np.stack([Image.fromarray(f).resize(expected, Image.Resampling.BICUBIC) for f in native])
    assert np.abs(scaled.astype(int) - by_pillow).mean() < 4


_PEAK = """
import resource, sys
from tam_plugin.video import sample_frames
size = int(sys.argv[2]) or None
sample_frames(sys.argv[1], 2, size=64)  # what libraries take once
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
held = sample_frames(sys.argv[1], int(sys.argv[3]), size=size, num_threads=2).frames.nbytes
print(held, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss is in kilobytes on Linux only")
def test_memory_is_bounded_by_the_frames_asked_for(tmp_path: Path) -> None:
    """60 frames of 1280×720 are 166 MB as RGB: at 64×64 they must never be held at their native size."""
    path = make_clip(tmp_path / "a.mp4", 60, size=(1280, 720), gop=20, options={"preset": "ultrafast"})
    for size, wanted in ((64, 60), (0, 20)):
        command = [sys.executable, "-c", _PEAK, str(path), str(size), str(wanted)]
        held, peak = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
        assert peak < held + 40e6


def test_frames_are_one_writable_block_in_rows(clip: Path) -> None:
    frames = sample_frames(clip, 4).frames
    assert frames.dtype == np.uint8 and frames.flags.c_contiguous and frames.flags.writeable
