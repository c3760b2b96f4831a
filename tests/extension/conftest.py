"""An Inductor that knows a ninth task type, and what else of the hosts these tests need."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.extension.material import extended_inductor
from tests.llava.conftest import host, llava, llava_train, qwen_prompts
from tests.onevision.conftest import dense_and_tokenizer

__all__ = ["dense_and_tokenizer", "host", "llava", "llava_train", "qwen_prompts"]


@pytest.fixture(scope="session")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the extended Inductor."""
    return extended_inductor(tmp_path_factory.mktemp("extended"))
