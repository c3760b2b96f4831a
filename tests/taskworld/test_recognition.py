"""The world knows its own clips from every other video."""

from __future__ import annotations

import numpy as np

import tam_plugin as tam
from tam_plugin.eval.taskworld.recognition import is_taskworld
from tam_plugin.eval.taskworld.render import write_file
from tam_plugin.eval.taskworld.world import draw_clip


def test_its_own_files_are_recognised(tmp_path) -> None:
    for seed in range(8):
        write_file(draw_clip(seed, 5.0), tmp_path / "clip.mp4")
        assert is_taskworld(tam.sample_frames(tmp_path / "clip.mp4", 3).frames)


def test_a_video_that_only_begins_like_one_is_not(tmp_path) -> None:
    write_file(draw_clip(0, 5.0), tmp_path / "clip.mp4")
    frames = tam.sample_frames(tmp_path / "clip.mp4", 4).frames
    for other in (2, 3):
        changed = frames.copy()
        changed[other] = np.random.default_rng(0).integers(0, 256, changed[other].shape, np.uint8)
        assert is_taskworld(frames) and not is_taskworld(changed)


def test_other_pictures_are_not(sample_clip) -> None:
    rng = np.random.default_rng(0)
    frames = tam.sample_frames(sample_clip, 2).frames
    square = frames[:, :, :360]
    for other in (
        frames,
        square,
        np.zeros((1, 288, 288, 3), np.uint8),
        rng.integers(0, 256, (1, 288, 288, 3), np.uint8),
    ):
        assert not is_taskworld(other)
