"""Existing checkpoints become TAM models that compute the same: the host is the measure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tam_plugin.errors import ConfigError
from tests.llava import tiny

pytestmark = pytest.mark.usefixtures("llava")


def model_args(**more):
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    settings = {
        "vision_tower": "tam",
        "vision_tower_pretrained": None,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "pretrain_mm_mlp_adapter": None,
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": "mlp2x_gelu",
        "mm_resampler_type": None,
        "add_faster_video": False,
    }
    tam = {name: more.pop(name) for name in list(more) if name.startswith("tam_")}
    return SimpleNamespace(**{**settings, **more}, tam_args=TamArguments(**tam))


def load_dense(dense: Path, hub: Path, dtype: torch.dtype = torch.float32):
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    with tiny.hub_cache(hub):
        return LlavaQwenForCausalLM.from_pretrained(dense, torch_dtype=dtype).eval()


def upgrade(model, hub: Path, **more):
    with tiny.hub_cache(hub):
        model.get_model().initialize_vision_modules(model_args(**more))
    return model.eval()


def video(num_frames: int) -> torch.Tensor:
    """Frames that differ from each other without being noise all over."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(num_frames, 3, 12, 12, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(384, 384), mode="bilinear")


PROMPT = torch.tensor([[257, 72, 105, -200, 87, 104, 97, 116, 258]])


@torch.no_grad()
def logits(model, frames: torch.Tensor, modality: str = "video") -> torch.Tensor:
    return model(input_ids=PROMPT, images=[frames], modalities=[modality], image_sizes=[(384, 384)]).logits


@torch.no_grad()
def answer(model, frames: torch.Tensor) -> list[int]:
    inputs = {"images": [frames], "modalities": ["video"], "image_sizes": [(384, 384)]}
    return model.generate(PROMPT, **inputs, max_new_tokens=6, do_sample=False)[0].tolist()


@pytest.mark.parametrize("num_frames", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_upgraded_equals_the_host_at_stride_2(dense: Path, hub: Path, num_frames: int):
    model, frames = load_dense(dense, hub), video(num_frames)
    before, said = logits(model, frames), answer(model, frames)
    of_image = logits(model, frames[:1], "image")
    upgrade(model, hub)
    assert model.config.mm_vision_tower == "tam"
    assert before.shape[1] == len(PROMPT[0]) - 1 + num_frames * 14 * (14 + 1)
    torch.testing.assert_close(logits(model, frames), before, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(model, frames[:1], "image"), of_image, atol=1e-5, rtol=0)
    assert answer(model, frames) == said


def test_a_plain_language_model_gets_a_tower_from_the_named_siglip(llm: Path, dense: Path, hub: Path):
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    model = LlavaQwenForCausalLM.from_pretrained(llm, torch_dtype=torch.float32)
    upgrade(model, hub, vision_tower_pretrained=tiny.SIGLIP, tam_strides="1,2")
    tower, frames = model.get_vision_tower(), video(2)
    assert model.config.tam["vision_encoder"]["num_hidden_layers"] == 3
    assert [name for name, _ in model.get_model().mm_projector.named_children()] == ["stride_1", "stride_2"]
    with torch.no_grad():
        expected = load_dense(dense, hub).get_vision_tower()(frames)
        torch.testing.assert_close(tower(frames), expected, atol=1e-5, rtol=0)


def test_from_stage_2_to_stage_3(dense: Path, hub: Path):
    model, frames = load_dense(dense, hub), video(2)
    before = logits(model, frames)
    upgrade(model, hub, tam_moe=False, tam_projector_gate="single")
    assert [name for name, _ in model.get_model().mm_projector.named_children()] == ["shared"]
    torch.testing.assert_close(logits(model, frames), before, atol=1e-5, rtol=0)
    upgrade(model, hub, tam_moe=True, tam_projector_gate="resolution")
    assert len(list(model.get_model().mm_projector.children())) == 4
    assert any("experts" in name for name in model.state_dict())
    torch.testing.assert_close(logits(model, frames), before, atol=1e-5, rtol=0)


def test_a_tam_checkpoint_goes_on_with_other_settings_but_not_other_parts(dense: Path, hub: Path):
    model = upgrade(load_dense(dense, hub), hub)
    upgrade(model, hub, tam_top_k=1, tam_balance_loss_weight=0.5)
    moe = model.get_vision_tower().vision_tower.vision_model.encoder.layers[0].mlp
    assert (moe.config.top_k, moe.gate.config.top_k) == (1, 1)
    assert (model.config.tam["moe"]["top_k"], model.config.tam["moe"]["balance_loss_weight"]) == (1, 0.5)
    with pytest.raises(ConfigError, match=r"--tam_num_experts: 8 was asked for, but the checkpoint has 4"):
        upgrade(model, hub, tam_num_experts=8)
    with pytest.raises(ConfigError, match="projector"):
        upgrade(model, hub, tam_strides="1,2")


def test_a_pretrained_projector_goes_to_every_stride(dense: Path, hub: Path, tmp_path: Path):
    model = load_dense(dense, hub)
    adapter = {f"model.mm_projector.{n}": torch.randn_like(t) for n, t in model.model.mm_projector.state_dict().items()}
    torch.save(adapter, tmp_path / "mm_projector.bin")
    upgrade(model, hub, pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"))
    for stride, child in model.model.mm_projector.named_children():
        for name, tensor in child.state_dict().items():
            assert torch.equal(tensor, adapter[f"model.mm_projector.{name}"]), (stride, name)
    adapter.popitem()
    torch.save(adapter, tmp_path / "mm_projector.bin")
    with pytest.raises(ConfigError, match=r"mm_projector\.bin.* holds no stride_1\.2\.bias"):
        upgrade(model, hub, pretrain_mm_mlp_adapter=str(tmp_path / "mm_projector.bin"))


def test_lora_layers_of_the_language_model_run_move_with_the_tower(dense: Path, hub: Path):
    peft = pytest.importorskip("peft")
    model, frames = load_dense(dense, hub), video(2)
    before = logits(model, frames)
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    upgrade(model, hub)
    assert any("vision_tower" in name and "q_proj.lora_A" in name for name, _ in model.named_parameters())
    torch.testing.assert_close(logits(model, frames), before, atol=1e-5, rtol=0)


def test_a_tower_that_is_no_siglip_is_refused_and_left_alone(dense: Path, hub: Path):
    model = load_dense(dense, hub)
    del model.model.vision_tower
    model.model.vision_tower = torch.nn.Identity()
    with pytest.raises(ConfigError, match=r"vision tower is 'Identity'; expected a SigLIP tower"):
        upgrade(model, hub)
    assert type(model.get_vision_tower()) is torch.nn.Identity
    assert model.config.mm_vision_tower == tiny.SIGLIP


def test_a_tam_model_is_not_trained_under_another_towers_name(dense: Path, hub: Path):
    model = upgrade(load_dense(dense, hub), hub)
    with pytest.raises(ConfigError, match=r"the checkpoint has a TAM tower.*use --vision_tower tam"):
        upgrade(model, hub, vision_tower=tiny.SIGLIP)
    assert model.config.mm_vision_tower == "tam"


def test_without_the_flag_nothing_changes(dense: Path, hub: Path):
    model = load_dense(dense, hub)
    projector = model.model.mm_projector
    upgrade(model, hub, vision_tower=tiny.SIGLIP)
    assert type(model.get_vision_tower()).__name__ == "SigLipVisionTower"
    assert model.model.mm_projector is projector
    assert not hasattr(model.config, "tam")
