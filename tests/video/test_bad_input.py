"""Bad input: one line that names the file and what is wrong with it, for every reader, and nothing on stderr."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tam_plugin.errors import InputError, MissingDependencyError
from tam_plugin.video import probe_video, reader, sample_frames

from .clips import make_audio, make_clip

FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}


def refused(path: object, **options: object) -> str:
    """The message with which both ``probe_video`` and ``sample_frames`` refuse ``path``."""
    with pytest.raises(InputError) as sampling:
        sample_frames(path, 4, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        probe_video(path)  # type: ignore[arg-type]
    message = str(sampling.value)
    assert "\n" not in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.mp4")
    assert "no such file" in refused("line\nbreak.mp4")


@pytest.mark.parametrize("name", ["", "a\0b", b"bytes.mp4"])
def test_no_name(name: object) -> None:
    assert "expected the name of a video file" in refused(name)


def test_directory_without_images(tmp_path: Path) -> None:
    assert "a directory without images" in refused(tmp_path)


def test_directory_with_a_broken_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"no image")
    assert "1.png: cannot be read" in refused(tmp_path)


def test_directory_with_an_image_cut_short(tmp_path: Path, monkeypatch) -> None:
    # LLaVA-NeXT, imported by other tests of the same run, lets Pillow read such images.
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", False)
    from PIL import Image

    for name in ("1.png", "2.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:3000])
    with pytest.raises(InputError, match=r"2\.png: cannot be read"):
        sample_frames(tmp_path, 2)


@pytest.mark.parametrize("fps", [0, -1.0, float("nan"), float("inf"), "2", True])
def test_frame_rate_of_images(tmp_path: Path, fps: object) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(InputError, match="image_fps"):
        sample_frames(tmp_path, 2, image_fps=fps)  # type: ignore[arg-type]


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    assert "empty (0 bytes)" in refused(tmp_path / "a.mp4")


def test_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("This is no video.\n" * 200)
    assert "cannot be opened as a video (Invalid data found" in refused(tmp_path / "a.mp4")


def test_subtitles_only(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    assert "not in one of the video formats that are read" in refused(tmp_path / "a.srt")


def test_audio_only(tmp_path: Path) -> None:
    assert "has audio streams only" in refused(make_audio(tmp_path / "a.m4a"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refused(tmp_path / "pipe.mp4")


def cut(source: Path, path: Path, share: float) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.2, 0.5, 0.97])
def test_mp4_cut_before_its_index(clip: Path, tmp_path: Path, share: float) -> None:
    assert "cannot be opened as a video" in refused(cut(clip, tmp_path / "cut.mp4", share))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_mp4_cut_behind_its_index_says_how_many_frames_are_left(tmp_path: Path, share: float) -> None:
    whole = make_clip(tmp_path / "whole.mp4", container_options={"movflags": "faststart"})
    message = refused(cut(whole, tmp_path / "cut.mp4", share))
    left = int(message.split("only ")[1].split(" of ")[0])
    assert "of 60 frames can be read" in message
    assert 0 < left < 60


@pytest.mark.parametrize("settings", [{"name": "a.mkv"}, {"name": "a.mp4", "container_options": FRAGMENTED}])
def test_other_files_cut_short_say_how_many_frames_are_left(tmp_path: Path, settings: dict) -> None:
    whole = make_clip(tmp_path / settings["name"], container_options=settings.get("container_options"))
    message = refused(cut(whole, tmp_path / f"cut_{settings['name']}", 0.6))
    assert "is cut short or damaged" in message
    assert 0 < int(message.split("only ")[1].split(" frames")[0]) < 60


def test_damaged_frames_are_counted(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.avi", codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(whole.read_bytes())
    starts = [i for i in range(len(data) - 4) if data[i : i + 4] == b"00dc" and data[i + 8 : i + 10] == b"\xff\xd8"]
    for start in starts[40:]:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        data[start + 8 : start + 8 + size] = bytes(size)
    (tmp_path / "damaged.avi").write_bytes(data)
    with pytest.raises(InputError, match=r"3 of the 8 frames asked for are damaged; at most a share of 0\.25"):
        sample_frames(tmp_path / "damaged.avi", 8)
    sampled = sample_frames(tmp_path / "damaged.avi", 8, max_damaged=0.5)
    assert sampled.damaged_frames == (42, 50, 59)
    assert sampled.indices.tolist() == [0, 8, 16, 25, 33, 39]


def test_no_frame_can_be_decoded(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = b"\x00\x00\x00\x01" * ((end - start) // 4) + bytes((end - start) % 4)
    (tmp_path / "a.mp4").write_bytes(data)
    assert "none of its frames can be decoded" in refused(tmp_path / "a.mp4")


def test_header_without_frames(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", 0)
    assert "a.mp4" in refused(path)


@pytest.mark.parametrize("budget", [0, -3, True, 2.5, "64", None])
def test_budget(clip: Path, budget: object) -> None:
    with pytest.raises(InputError, match="budget = "):
        sample_frames(clip, budget)  # type: ignore[arg-type]


def test_unknown_backend_lists_the_choices(clip: Path) -> None:
    with pytest.raises(InputError, match="'ffmpeg': expected one of auto, pyav, decord, torchcodec"):
        sample_frames(clip, 4, backend="ffmpeg")


def test_backend_that_is_not_installed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reader._READERS, "decord", ("a_package_that_nobody_has", "decord"))
    assert "decord" not in reader.available_backends()
    with pytest.raises(
        MissingDependencyError, match=r"not installed: pip install 'a_package_that_nobody_has'$"
    ) as error:
        sample_frames(clip, 4, backend="decord")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("size", [0, -1, 2.5, "384", (384,), (1, 2, 3), (0, 5), True])
def test_size(clip: Path, size: object) -> None:
    with pytest.raises(InputError, match="size = "):
        sample_frames(clip, 4, size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads(clip: Path, threads: object) -> None:
    with pytest.raises(InputError, match="num_threads = "):
        sample_frames(clip, 4, num_threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_nothing_but_our_line_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str], backend: str) -> None:
    pytest.importorskip(reader._READERS[backend][0])
    whole = make_clip(tmp_path / "whole.ts")
    capfd.readouterr()
    data = bytearray(whole.read_bytes())
    for start in range(len(data) // 2, len(data) // 2 + 4000, 7):
        data[start] ^= 0x55
    (tmp_path / "damaged.ts").write_bytes(data)
    try:
        frames = sample_frames(tmp_path / "damaged.ts", 8, backend=backend).frames
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert frames.shape[1:] == (96, 160, 3)
    assert capfd.readouterr() == ("", "")
