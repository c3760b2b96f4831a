"""The fuzz commands run and find nothing in a few cases; and their judges find what they are there for."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tam_plugin.video import SampledVideo, sample_frames

from .films import KINDS
from .harness import Result, Verdict
from .shown import Shown, judge_damaged, judge_whole, read_shown, write_shown

ROOT = Path(__file__).resolve().parents[2]


def fuzz(name: str, keep: Path, *options: str) -> str:
    command = [sys.executable, "-m", f"tests.fuzz.{name}", "--keep", str(keep), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_videos(tmp_path: Path) -> None:
    said = fuzz("video", tmp_path, "--cases", "6", "--readers", "pyav")
    assert "video: 6 cases of seed 0, 0 of them could not be made" in said
    counts = [int(number) for line in said.splitlines() if line.startswith("pyav") for number in line.split()[1:]]
    assert sum(counts) == 6
    assert not list(tmp_path.iterdir())


def test_images(tmp_path: Path) -> None:
    said = fuzz("images", tmp_path, "--cases", "12")
    assert "images: 12 cases of seed 0, 0 of them could not be made" in said


@pytest.mark.slow
def test_configurations(tmp_path: Path) -> None:
    said = fuzz("config", tmp_path, "--cases", "14", "--targets", "policy", "Inductor")
    assert "config: 14 cases of seed 0, 0 of them could not be made" in said
    first, *_ = (line.split()[1:] for line in said.splitlines() if line.startswith("policy"))
    assert sum(map(int, first)) == 7
    assert int(first[0]) > 0 and int(first[1]) > 0


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> tuple[SampledVideo, dict[str, Shown]]:
    """Nine frames of a film with B-frames, and what players show of it."""
    folder = tmp_path_factory.mktemp("film")
    kind = next(kind for kind in KINDS if kind.name == "copied from a bare stream in MP4")
    truth = kind.make(folder / "film.mp4", random.Random(0))
    write_shown(folder / "film.mp4", folder, "shown")
    shown = read_shown(folder, "shown")
    assert {"libav", "threads"} <= shown.keys()
    assert all(each.numbers == list(truth) for each in shown.values())
    return sample_frames(folder / "film.mp4", 9), shown


def test_whole_files_are_judged_by_what_players_show(sampled: tuple[SampledVideo, dict[str, Shown]]) -> None:
    video, shown = sampled
    assert judge_whole(video, 9, shown) == Result(Verdict.RIGHT)
    shifted = np.roll(video.frames, 1, axis=0)
    assert "9 of 9 frames are others: [59, 0, 7" in judge_whole(replace(video, frames=shifted), 9, shown).detail
    assert "indices" in judge_whole(video, 8, shown).detail
    late = video.timestamps_s + np.linspace(0, 0.2, 9)
    assert judge_whole(replace(video, timestamps_s=video.timestamps_s[::-1]), 9, shown).verdict is Verdict.WRONG
    times_known = {name: replace(each, times_s=np.arange(60) / 25) for name, each in shown.items()}
    assert judge_whole(video, 9, times_known).verdict is Verdict.RIGHT
    assert "timestamps" in judge_whole(replace(video, timestamps_s=late), 9, times_known).detail
    short = replace(video, info=replace(video.info, num_frames=59))
    assert "59 frames instead of 60" in judge_whole(short, 9, shown).detail
    assert "damage is reported" in judge_whole(replace(video, damaged_frames=(7,)), 9, shown).detail


def test_tampered_files_are_judged_frame_by_frame(sampled: tuple[SampledVideo, dict[str, Shown]]) -> None:
    video, shown = sampled
    original = shown["libav"]
    assert judge_damaged(video, shown, original) == Result(Verdict.RIGHT)
    frames = video.frames.copy()
    frames[3, 100:] = 255 - frames[3, 100:]
    broken = replace(video, frames=frames)
    assert "1 of 9 frames are others: 22 shows 22" in judge_damaged(broken, shown, original).detail
    told = replace(broken, damaged_frames=(22,))
    assert judge_damaged(told, shown, original).verdict is Verdict.DAMAGE
    # a player shows the broken picture too: right, unless libav marks it
    cells = original.cells.copy()
    cells[22] = 255 - cells[22]
    seen = {"libav": replace(original, cells=cells)}
    inverted = replace(video, frames=np.concatenate([video.frames[:3], 255 - video.frames[3:4], video.frames[4:]]))
    assert judge_damaged(inverted, seen, original).verdict is Verdict.RIGHT
    marked = {"libav": replace(seen["libav"], corrupt=np.arange(60) == 22)}
    assert "marks as corrupt are not reported: [22]" in judge_damaged(inverted, marked, original).detail
