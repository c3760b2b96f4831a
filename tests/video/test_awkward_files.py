"""Awkward but whole files: hidden frames, streams that were cut into, turned pictures, folders of images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_plugin.video import probe_video, sample_frames
from tam_plugin.video.orientation import orientation_of_matrix

from .clips import (
    HEIGHT,
    MATRICES,
    WIDTH,
    make_clip,
    picture,
    shown_frames,
    with_first_frames_hidden,
    with_matrix,
)


@pytest.mark.parametrize("hidden", [1, 12, 17, 59])
def test_frames_hidden_by_an_edit_list_do_not_count(clip: Path, tmp_path: Path, hidden: int) -> None:
    path = with_first_frames_hidden(clip, tmp_path / "edited.mp4", hidden)
    every, times = shown_frames(path)
    assert len(every) == 60 - hidden
    info = probe_video(path)
    assert (info.num_frames, info.fps) == (len(every), 25)
    assert info.duration_s == pytest.approx(len(every) / 25)
    sampled = sample_frames(path, 9)
    assert np.array_equal(sampled.frames, every[sampled.indices])
    assert sampled.timestamps_s == pytest.approx([times[i] - times[0] for i in sampled.indices])


def test_stream_cut_into_starts_at_its_first_keyframe(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.ts", gop=20, options={"sc_threshold": "0"}).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) // 188 // 3 * 188 :])
    every, _ = shown_frames(path)
    assert 0 < len(every) < 60
    sampled = sample_frames(path, 100)
    assert np.array_equal(sampled.frames, every)
    assert sampled.timestamps_s[0] == 0


def test_streams_that_come_up_after_the_start(tmp_path: Path) -> None:
    """A recording that goes on with sound: PyAV knows of the second stream only once it has read that far."""
    silent, sounding = make_clip(tmp_path / "a.ts", 30), make_clip(tmp_path / "b.ts", 30, with_sound=True)
    nothing = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 40_000  # more than is looked at when the file is opened
    path = tmp_path / "joined.ts"
    path.write_bytes(silent.read_bytes() + nothing + sounding.read_bytes())
    sampled = sample_frames(path, 60)
    assert np.array_equal(sampled.frames[:30], shown_frames(silent)[0])
    assert np.array_equal(sampled.frames[30:], shown_frames(sounding)[0])
    assert (np.diff(sampled.timestamps_s) > 0).all()


def turned(matrix: tuple[int, int, int, int], image: np.ndarray) -> np.ndarray:
    """``image`` as a player shows it: each stored point moved by the display matrix, one at a time."""
    a, b, c, d = matrix
    height, width = image.shape[:2]
    y, x = (axis.ravel() for axis in np.mgrid[0:height, 0:width])
    column, row = a * x + c * y, b * x + d * y
    column, row = column - column.min(), row - row.min()
    shown = np.empty((row.max() + 1, column.max() + 1, 3), np.uint8)
    shown[row, column] = image[y, x]
    return shown


@pytest.mark.parametrize("kind", MATRICES)
def test_turned_videos_come_out_upright(clip: Path, tmp_path: Path, kind: str) -> None:
    path = with_matrix(clip, tmp_path / "turned.mp4", MATRICES[kind])
    every, _ = shown_frames(path)
    sampled = sample_frames(path, 5)
    expected = np.stack([turned(MATRICES[kind], every[i]) for i in sampled.indices])
    assert np.array_equal(sampled.frames, expected)
    assert sampled.frames.flags.c_contiguous
    info = probe_video(path)
    assert (info.height, info.width) == sampled.frames.shape[1:3]
    small = sample_frames(path, 5, size=(48, 40)).frames
    assert small.shape == (5, 40, 48, 3)
    upright = sample_frames(clip, 5, size=(40, 48) if info.height == WIDTH else (48, 40)).frames
    assert np.array_equal(small, np.stack([turned(MATRICES[kind], frame) for frame in upright]))


def test_a_matrix_that_is_no_quarter_turn_is_upright() -> None:
    assert orientation_of_matrix((46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30)).rotation == 0


def test_variable_rate_keeps_the_true_times_and_the_mean_rate(tmp_path: Path) -> None:
    times = [0, 10, 30, 200, 210, 1000, 1040, 1500, 1900, 2000]
    for name in ("v.mp4", "v.mkv"):
        path = make_clip(tmp_path / name, len(times), times=times, time_base=Fraction(1, 1000))
        sampled = sample_frames(path, 4)
        assert sampled.timestamps_s == pytest.approx([times[i] / 1000 for i in sampled.indices], abs=1e-3)
        assert sampled.info.duration_s == pytest.approx(
            2.04
        )  # the last frame stands for one of the stream's 25 a second
        assert probe_video(path) == sampled.info
        assert sampled.info.fps == pytest.approx(9 / 2, rel=0.02)


def save(folder: Path, names: list[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(picture(number, *size)).save(folder / name)


def test_folder_of_images_is_read_in_natural_order(tmp_path: Path) -> None:
    names = ["frame_1.png", "frame_2.png", "Frame_9.PNG", "frame_10.png", "frame_11.png", "frame_100.png"]
    save(tmp_path / "f", names)
    (tmp_path / "f" / "notes.txt").write_text("not an image")
    (tmp_path / "f" / ".hidden.png").write_text("not an image either")
    info = probe_video(tmp_path / "f", image_fps=2.0)
    assert (info.num_frames, info.fps, info.duration_s, info.width, info.height) == (6, 2.0, 3.0, WIDTH, HEIGHT)
    sampled = sample_frames(tmp_path / "f", 20, image_fps=2.0)
    assert np.array_equal(sampled.frames, np.stack([picture(number) for number in range(6)]))
    assert sampled.timestamps_s.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert sampled.backend == "images"
    assert probe_video(tmp_path / "f").duration_s == 6


def test_photographs_are_turned_and_scaled(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    Image.fromarray(picture(3, 320, 192)).save(tmp_path / "f" / "1.jpg", exif=exif, quality=95)
    full = sample_frames(tmp_path / "f", 1).frames[0]
    assert full.shape == (320, 192, 3)
    assert np.abs(full.astype(int) - np.rot90(picture(3, 320, 192), 3)).mean() < 12
    small = sample_frames(tmp_path / "f", 1, size=(96, 160)).frames[0]
    reduced = np.asarray(Image.fromarray(full).resize((96, 160), Image.Resampling.BOX))
    assert np.abs(small.astype(int) - reduced).mean() < 4
