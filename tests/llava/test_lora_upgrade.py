"""LoRA upgrade from the script: killed, resumed, merged on disk, and the same answer in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.llava import tiny
from tests.llava.test_recipes import ON_A_CPU, Shop, parts_table
from tests.llava.test_train_script import run_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llava_train")]
STEPS, KILLED_AFTER = 10, 4
FRESH = """
import sys, torch
from pathlib import Path
from tests.llava import tiny
sys.path.append(sys.argv[1])
from tam_plugin.patches import activation
activation.start()
from tests.llava.test_loading import load
tokenizer, model, _, _ = load(Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3] else None, name=sys.argv[4])
generator = torch.Generator().manual_seed(5)
frames = torch.randn(3, 3, 384, 384, generator=generator)
ids = torch.tensor([[-200, *tokenizer("What colour is the square?").input_ids]])
with torch.inference_mode():
    out = model.float().eval()(ids, images=[frames], modalities=["video"], image_sizes=[(384, 384)]).logits
torch.save(out, sys.argv[5])
"""


@pytest.fixture
def shop(llava: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path) -> Shop:
    return Shop(llava, hub, training_set, tmp_path)


def logits(shop: Shop, checkpoint: Path, base: Path | None, out: Path) -> torch.Tensor:
    """Of a fresh process, through the host's loader, in float32."""
    env = tiny.environment(shop.host, shop.hub)
    arguments = [
        str(shop.host),
        str(checkpoint),
        str(base or ""),
        "llava-qwen-lora" if base else "llava-qwen",
        str(out),
    ]
    command = [sys.executable, "-c", FRESH, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(out, weights_only=True)


def test_killed_resumed_merged_and_loaded(shop: Shop, dense: Path, tmp_path: Path) -> None:
    out = tmp_path / "lora-qwen"
    on_cpu = [text for name, value in ON_A_CPU.items() for text in (f"--{name}", value)]
    variables = {"MAX_STEPS": str(STEPS), "SAVE_STEPS": str(KILLED_AFTER), "LORA_R": "4", "LORA_ALPHA": "8"}
    args, env = shop.command("lora_7b.sh", dense, "lora-qwen", *on_cpu, **variables)
    run_until(out / f"checkpoint-{KILLED_AFTER}", args, env, tmp_path)
    printed = shop.train("lora_7b.sh", dense, "lora-qwen", **variables)
    assert "LoRA is not applied to 6 layers of the vision tower" in printed
    assert parts_table(printed) == parts_table(shop.dry("lora_7b.sh", dense, LORA_R="4"))
    steps = json.loads((out / "trainer_state.json").read_text())["log_history"]
    assert [row["step"] for row in steps if "L_ori" in row] == list(range(1, STEPS + 1))

    start, trained = load_file(dense / "model.safetensors"), load_file(out / "tam_non_lora.safetensors")
    layer = "model.vision_tower.vision_tower.vision_model.encoder.layers.0."
    for name in ("self_attn.q_proj.weight", "self_attn.out_proj.bias", "layer_norm1.weight"):
        assert torch.equal(trained[layer + name], start[layer + name]), name
    experts, gate = trained[f"{layer}mlp.experts.fc1.weight"], trained[f"{layer}mlp.gate.weight"]
    assert gate.any() and not torch.equal(experts[0], experts[1])
    assert not torch.equal(trained["model.image_newline"], start["model.image_newline"])
    adapter = load_file(out / "adapter_model.safetensors")
    assert adapter and not any("vision_tower" in name for name in adapter)

    merged = tmp_path / "merged-qwen"
    command = [sys.executable, "-m", "tam_plugin.cli.main", "merge", str(out), str(merged), "--base", str(dense)]
    env = tiny.environment(shop.host, shop.hub)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    before = logits(shop, out, dense, tmp_path / "before.pt")
    after = logits(shop, merged, None, tmp_path / "after.pt")
    print("largest difference of logits", (before - after).abs().max().item())
    torch.testing.assert_close(after, before, atol=BFLOAT16, rtol=0)


BFLOAT16 = 2e-2
"""The host merges an adapter in the checkpoint's bfloat16, and so rounds otherwise than a sum in float32 does."""
