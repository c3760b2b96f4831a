"""Settings of the whole suite: no hub look-ups, few threads, where optional material lies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def sample_clip() -> Path:
    """The clip that ships with the package."""
    return ROOT / "tam_plugin" / "assets" / "sample.mp4"
