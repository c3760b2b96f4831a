"""A SigLIP in a folder of any layout is one, as a checkpoint's tower and as a plain language model's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tam_plugin import TamConfig
from tam_plugin.errors import InputError
from tests.llava import tiny
from tests.llava.test_upgrade import load_dense, logits, upgrade, video
from tests.llava.test_upgrade_arguments import with_config

pytestmark = pytest.mark.usefixtures("llava")
LAYOUTS = ("vision model", "whole model")


@pytest.fixture(params=LAYOUTS)
def encoder(request: pytest.FixtureRequest, hub: Path, tmp_path: Path) -> Path:
    """A folder with the encoder of the hub cache; nothing in its name says SigLIP."""
    from huggingface_hub import snapshot_download

    snapshot = Path(snapshot_download(tiny.SIGLIP, cache_dir=hub, local_files_only=True))
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to((snapshot / "model.safetensors").resolve())
    values = json.loads((snapshot / "config.json").read_text())
    if request.param == "whole model":
        values = {"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"}, "vision_config": values}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def with_tower(dense: Path, folder: Path, tower: Path) -> Path:
    """The dense checkpoint, its tower named by a path."""
    checkpoint = with_config(dense, folder, mm_vision_tower=str(tower))
    for file in dense.iterdir():
        if not (checkpoint / file.name).exists():
            (checkpoint / file.name).symlink_to(file)
    return checkpoint


def check(start: Path, **more: str) -> None:
    from tam_plugin.patches.llava_next.command_line.preflight import check_training

    settings = {"model_name_or_path": str(start), "vision_tower_pretrained": None, **more}
    check_training(SimpleNamespace(**settings))


@torch.no_grad()
def test_a_checkpoint_with_a_folder_as_its_tower(dense: Path, hub: Path, encoder: Path, tmp_path: Path) -> None:
    start = with_tower(dense, tmp_path / "local-qwen", encoder)
    check(start)
    frames = video(2)
    expected = logits(load_dense(dense, hub), frames)
    model = load_dense(start, hub)
    torch.testing.assert_close(logits(model, frames), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits(upgrade(model, hub), frames), expected, atol=1e-4, rtol=0)


def test_a_folder_for_a_plain_language_model(llm: Path, encoder: Path) -> None:
    from tam_plugin.patches.llava_next.checkpoints.pretrained import tower_from_siglip

    check(llm, vision_tower_pretrained=str(encoder))
    assert tower_from_siglip(str(encoder), TamConfig()).hidden_size == 1152


def test_a_path_of_another_machine(dense: Path, tmp_path: Path) -> None:
    start = with_tower(dense, tmp_path / "moved-qwen", Path("/other/machine/siglip-so400m"))
    with pytest.raises(InputError, match=r"mm_vision_tower.*there is no folder '/other/machine/siglip-so400m'"):
        check(start)
    command = [sys.executable, "-m", "tam_plugin.cli.main", "upcycle", str(start), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "there is no folder '/other/machine/siglip-so400m' on this machine" in done.stderr
