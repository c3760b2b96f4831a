"""The two benchmarks run, compare the right things, and refuse to time ways that do not agree."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tam_plugin.bench import preprocess, video
from tam_plugin.errors import InputError


def run(module: ModuleType, *arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return json.loads(json.dumps(module.run(parser.parse_args(arguments))))


def test_preprocess() -> None:
    result = run(preprocess, "--frames", "3", "--width", "200", "--height", "120", "--rounds", "1")
    assert result["rows"][0]["ratio"] == 1.0
    assert len(result["rows"]) == 2
    assert result["largest_difference"] <= 1 / 127.5 + 1e-6


def test_preprocess_refuses_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "host_way", lambda frames: np.zeros((len(frames), 3, 384, 384), np.float32))
    with pytest.raises(RuntimeError, match="largest difference"):
        run(preprocess, "--frames", "1", "--width", "20", "--height", "20")


def test_video_makes_its_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("decord")
    arguments = ("--seconds", "4", "--frames", "5", "--rounds", "1", "--workdir", str(tmp_path))
    result = run(video, *arguments)
    assert (result["size"], result["duration_s"], result["num_frames"]) == ([640, 360], 4.0, 5)
    assert [row["name"] for row in result["rows"]][:2] == ["host: decord, one thread", "tam_plugin: exact"]
    assert "making a video: 0 of 4 s" in capsys.readouterr().err
    run(video, *arguments)
    assert "making a video" not in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_video_refuses_frames_that_are_not_the_hosts(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord")
    monkeypatch.setattr(video, "host_way", lambda path, num_frames: np.zeros((num_frames, 96, 160, 3), np.uint8))
    with pytest.raises(RuntimeError, match="not those that decord gives"):
        run(video, "--video", str(clip), "--frames", "4")


def test_video_refuses_other_counts(clip: Path) -> None:
    pytest.importorskip("decord")
    with pytest.raises(InputError, match="--frames = 0"):
        run(video, "--video", str(clip), "--frames", "0")
