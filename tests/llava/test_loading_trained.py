"""LoRA and projector-only runs of the host's ``train_mem.py``: what they leave is resumed and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.llava import tiny
from tests.llava.test_loading import load
from tests.llava.test_upgrade import PROMPT, load_dense, upgrade, video

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("llava_train")]
FILE = "tam_non_lora.safetensors"


def train(host: Path, hub: Path, *args, **more) -> str:
    done = tiny.run_train(host, hub, tiny.train_args(*args, vision_tower="tam", save_steps=1, **more))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


@torch.no_grad()
def answer(model) -> list[int]:
    inputs = {"images": [video(2).to(model.dtype)], "modalities": ["video"], "image_sizes": [(384, 384)]}
    return model.eval().generate(PROMPT, **inputs, max_new_tokens=3, do_sample=False)[0].tolist()


def same_visual_weights(model, file: Path) -> None:
    state, held = model.state_dict(), load_file(file)
    assert {"model.image_newline", "model.mm_projector.stride_4.2.weight"} <= set(held)
    for name, tensor in held.items():
        # LoRA of a language model run reaches the tower's attention too and is merged there.
        if not any(part in name for part in ("q_proj", "k_proj", "v_proj")):
            assert torch.equal(state[name], tensor.to(state[name].dtype)), name


def test_lora_run_is_resumed_and_loaded_over_a_plain_language_model(
    llava: Path, llm: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path
):
    lora = {"lora_enable": True, "lora_r": 2, "lora_alpha": 4, "vision_tower_pretrained": tiny.SIGLIP}
    out = tmp_path / "lora-qwen"
    train(llava, hub, llm, training_set, out, 2, **lora)
    after = load_file(out / "checkpoint-2" / FILE)
    (out / FILE).unlink()
    # The same command again resumes at its last step: nothing is left to train (newer versions take one more step,
    # at learning rate 0), so the weights must be those.
    train(llava, hub, llm, training_set, out, 2, **lora)
    resumed = load_file(out / FILE)
    assert resumed.keys() == after.keys()
    assert all(torch.equal(resumed[name], after[name]) for name in after)
    for folder in (out, *out.glob("checkpoint-*")):
        _, model, _, _ = load(folder, llm, name="lora")
        same_visual_weights(model, folder / FILE)
        assert len(answer(model)) > 0


def test_projector_only_run(llava: Path, llm: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path):
    out = tmp_path / "projector-qwen"
    options = {"mm_tunable_parts": "mm_mlp_adapter", "vision_tower_pretrained": tiny.SIGLIP}
    train(llava, hub, llm, training_set, out, 1, **options)
    _, model, _, _ = load(out, llm)
    same_visual_weights(model, out / FILE)
    saved = torch.load(out / "mm_projector.bin", map_location="cpu", weights_only=True)
    for name, tensor in saved.items():
        assert torch.equal(model.state_dict()[name], tensor.to(model.dtype)), name
    assert len(answer(model)) > 0


def test_non_lora_weights_come_back(dense: Path, hub: Path, tmp_path: Path):
    from types import SimpleNamespace

    peft = pytest.importorskip("peft")
    from tam_plugin.errors import ConfigError
    from tam_plugin.patches.llava_next.checkpoints.partial_saving import load_non_lora, save_non_lora

    model = upgrade(load_dense(dense, hub), hub)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "vision_tower" in n and "lora" not in n}
    save_non_lora(SimpleNamespace(model=model, args=SimpleNamespace(should_save=True)), str(tmp_path))
    assert not any("lora" in name or "base_layer" in name for name in load_file(tmp_path / FILE))
    with torch.no_grad():
        for name in before:
            model.get_parameter(name).zero_()
    load_non_lora(model, str(tmp_path))
    assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in before.items())
    with pytest.raises(ConfigError, match=r"has shape .* the model has no such parameter"):
        load_non_lora(torch.nn.Linear(1, 1), str(tmp_path))
