"""The host under the repairs: the cells of docs/host_matrix.md that need no training, and its own modules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tam_plugin.patches import activation

from . import tiny
from .cells import Cells


@pytest.fixture(scope="module")
def cells(llava: Path, hub: Path, dense: Path, material: Path) -> Cells:
    return Cells(llava, material)


@pytest.mark.parametrize("cell", [Cells.forward_backward, Cells.generate, Cells.save_load])
def test_the_host_runs_here(cells: Cells, cell) -> None:
    cell(cells)


def test_no_repair_waits_once_its_module_is_there(llava: Path) -> None:
    rows = [row for row in activation.status() if row["group"] == "compat"]
    here = [row for row in rows if row["target"].partition(":")[0] in sys.modules]
    assert {row["state"] for row in here} <= {"applied", "not needed"}
    assert any(row["target"].startswith("llava.") for row in here)


def test_a_tower_that_no_checkpoint_fills_has_its_pretrained_weights(llava: Path, hub: Path, llm: Path) -> None:
    """A LLaVA config over a plain Qwen2: the checkpoint has no tower, so the tower's own weights must be there."""
    import torch
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
    from safetensors.torch import load_file

    with tiny.hub_cache(hub):
        model = LlavaQwenForCausalLM.from_pretrained(llm, config=tiny.dense_config())
    encoder = model.get_vision_tower().vision_tower
    published = load_file(next(hub.glob("*/snapshots/*/model.safetensors")))
    weights = dict(encoder.named_parameters())
    assert len(encoder.vision_model.encoder.layers) == 2
    assert weights.keys() <= published.keys()
    assert all(torch.equal(w.float(), published[name].float()) for name, w in weights.items())
    assert encoder.vision_model.embeddings.position_ids.tolist() == [list(range(729))]


def test_a_training_run_is_repaired(llava_train: Path) -> None:
    from llava.train import llava_trainer

    states = {row["name"]: row["state"] for row in activation.status()}
    loop = vars(llava_trainer.LLaVATrainer).get("_inner_training_loop")
    assert (states["trainer_loop.inner_training_loop"] == "applied") == (loop is not None)
    assert states["cpu.synchronize"] in ("applied", "not needed")


def test_training_by_the_hosts_script(
    llava_train: Path, dense: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path
) -> None:
    """Two steps of ``train_mem.py`` from a shell."""
    arguments = tiny.train_args(dense, training_set, tmp_path / "out-qwen", 2)
    ran = tiny.run_train(llava_train, hub, arguments)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count("'loss'") == 2
    assert (tmp_path / "out-qwen" / "model.safetensors").is_file()
