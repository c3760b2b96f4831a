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
        assert is_taskworld(tam.sample_frames(tmp_path / "clip.mp4", 2).frames)


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
