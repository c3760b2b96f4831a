"""Fixtures: a plain clip, and the real videos where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .clips import make_clip

_REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H.264 with B-frames: 60 frames, 25 a second, a keyframe every 12 at most."""
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture(scope="session")
def real_videos() -> list[Path]:
    """The real videos of ``TAM_SHARED_DATA`` (a folder that holds ``videos/``), or of ``../shared/data``."""
    root = Path(os.environ.get("TAM_SHARED_DATA", _REPOSITORY.parent / "shared" / "data")) / "videos"
    videos = sorted(root.glob("*.mp4"))
    if not videos:
        pytest.skip(f"no real videos in {root}; set TAM_SHARED_DATA to the folder that holds videos/")
    return videos
