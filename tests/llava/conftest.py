"""LLaVA-NeXT and the tiny material around it; every test here is skipped with the reason where the host cannot run."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from pathlib import Path

import pytest

from . import tiny


@pytest.fixture(scope="session")
def host() -> Path:
    """The folder of LLaVA-NeXT, on ``sys.path`` from now on."""
    folder = tiny.find_host()
    if folder is None:
        pytest.skip("LLaVA-NeXT not found: set LLAVA_NEXT_HOME to a checkout of LLaVA-VL/LLaVA-NeXT")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return folder


def _imports(module: str) -> None:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            importlib.import_module(module)
    except ImportError as error:
        # The host prints the cause and goes on, so that the error itself names a consequence.
        cause = re.search(r"Failed to import .*? Error: (.*)", printed.getvalue())
        pytest.skip(f"LLaVA-NeXT's {module} does not import here: {cause.group(1) if cause else error}")


@pytest.fixture(scope="session")
def llava(host: Path) -> Path:
    """The host, with the plugin's repairs, and its model importable in this process."""
    from tam_plugin.patches import activation

    activation.start()
    _imports("llava.model.builder")
    _imports("llava.model.language_model.llava_qwen")
    return host


@pytest.fixture(scope="session")
def llava_train(llava: Path) -> Path:
    """The host, with its training code importable (needs deepspeed)."""
    _imports("llava.train.train")
    return llava


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of the session's tiny material; "qwen" stands in the names of the checkpoints below it."""
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def hub(material: Path) -> Path:
    """A hub cache with the tiny encoder."""
    tiny.write_siglip(material / "hub")
    return material / "hub"


@pytest.fixture(scope="session")
def dense(llava: Path, hub: Path, material: Path) -> Path:
    """A LlavaQwen checkpoint with a plain SigLIP tower."""
    return tiny.write_dense(material / "llava-qwen-dense", hub)


@pytest.fixture(scope="session")
def llm(material: Path) -> Path:
    """A plain Qwen2 checkpoint."""
    return tiny.write_llm(material / "qwen-llm")


@pytest.fixture(scope="session")
def training_set(material: Path) -> tiny.TrainingSet:
    """Videos, an image and a row of text."""
    return tiny.write_training_set(material / "data")


@pytest.fixture
def qwen_prompts(llava_train: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's prompts as ``--version qwen_1_5`` sets them."""
    from llava import conversation

    monkeypatch.setattr(conversation, "default_conversation", conversation.conv_templates["qwen_1_5"])
