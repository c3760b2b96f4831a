"""Contact sheets: a PNG of the promised size with every frame in its place, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tam_plugin.errors import InputError
from tam_plugin.video import contact_sheet, sample_frames
from tam_plugin.video.sheet import clock


def test_every_frame_is_in_its_place(clip: Path, tmp_path: Path) -> None:
    video = sample_frames(clip, 7)
    assert contact_sheet(video, tmp_path / "sheet.png", columns=3, thumb_width=160) == tmp_path / "sheet.png"
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    height, width = sheet.shape[:2]
    assert width == 8 + 3 * (160 + 8)
    tops = [top for top in range(height - 96) if np.abs(sheet[top : top + 96, 8:168] - video.frames[0]).mean() < 1]
    assert len(tops) == 1  # the thumbnails have the frames' own size here
    step = (height - tops[0]) // 3
    for number, frame in enumerate(video.frames.astype(int)):
        top, left = tops[0] + number // 3 * step, 8 + number % 3 * 168
        assert np.abs(sheet[top : top + 96, left : left + 160] - frame).max() == 0
        caption = sheet[top + 98 : top + step - 8, left : left + 160]
        assert caption.max() > 140  # the time stands below in a light colour
    assert sheet[tops[0] + 2 * step + 5 :, 8 + 168 : 8 + 2 * 168].max() < 60  # nothing after the last frame


def test_fewer_frames_than_columns_and_a_name_too_long(clip: Path, tmp_path: Path) -> None:
    long_name = tmp_path / ("a very long name " * 8 + ".mp4")
    os.symlink(clip, long_name)
    contact_sheet(sample_frames(long_name, 1), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").width == 8 + 168


@pytest.mark.parametrize(
    "seconds, duration_s, expected",
    [
        (0, 10, "0:00.00"),
        (59.999, 70, "1:00.00"),
        (75.25, 80, "1:15.25"),
        (3599.6, 4000, "1:00:00"),
        (3725, 9e3, "1:02:05"),
    ],
)
def test_clock(seconds: float, duration_s: float, expected: str) -> None:
    assert clock(seconds, duration_s) == expected


def test_nothing_is_left_behind_when_it_cannot_be_written(clip: Path, tmp_path: Path) -> None:
    video = sample_frames(clip, 2)
    with pytest.raises(InputError, match="cannot be written"):
        contact_sheet(video, tmp_path / "no folder" / "sheet.png")
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        contact_sheet(video, tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_old_sheet_is_replaced(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.png").write_text("old")
    contact_sheet(sample_frames(clip, 2), tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").format == "PNG"


@pytest.mark.parametrize("options", [{"columns": 0}, {"columns": 2.0}, {"thumb_width": 3}, {"thumb_width": True}])
def test_other_settings_are_refused(clip: Path, tmp_path: Path, options: dict) -> None:
    with pytest.raises(InputError, match=" = "):
        contact_sheet(sample_frames(clip, 2), tmp_path / "sheet.png", **options)
    assert list(tmp_path.iterdir()) == []
