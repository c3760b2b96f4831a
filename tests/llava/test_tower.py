"""The tower against the host's own, with the weights of the same SigLIP."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.llava import tiny

pytestmark = pytest.mark.usefixtures("llava")


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    return torch.randn(3, 3, 384, 384, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def host_tower(hub: Path):
    from llava.model.multimodal_encoder.builder import build_vision_tower

    with tiny.hub_cache(hub):
        return build_vision_tower(SimpleNamespace(vision_tower=tiny.SIGLIP)).float().eval()


def tam_tower(hub: Path, **more):
    from llava.model.multimodal_encoder.builder import build_vision_tower

    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    settings = {"vision_tower": "tam", "vision_tower_pretrained": tiny.SIGLIP, "tam_args": TamArguments(**more)}
    with tiny.hub_cache(hub):
        return build_vision_tower(SimpleNamespace(**settings)).float().eval()


def test_other_names_go_to_the_host(host_tower):
    from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower

    assert type(host_tower) is SigLipVisionTower


@torch.no_grad()
def test_equals_the_hosts_tower(hub: Path, host_tower, frames: torch.Tensor):
    tower = tam_tower(hub)
    assert len(list(tower.vision_tower.vision_model.encoder.layers)) == 2
    torch.testing.assert_close(tower(frames), host_tower(frames), atol=1e-5, rtol=0)


def test_interface_equals_the_hosts(hub: Path, host_tower):
    tower = tam_tower(hub)
    for name in ("hidden_size", "image_size", "num_patches", "num_patches_per_side", "dtype", "device", "is_loaded"):
        assert getattr(tower, name) == getattr(host_tower, name), name
    assert tower.dummy_feature.shape == host_tower.dummy_feature.shape
    ours, theirs = tower.image_processor, host_tower.image_processor
    assert type(ours) is type(theirs)
    assert vars(ours) == vars(theirs)


@torch.no_grad()
def test_output_keeps_the_dtype_of_the_images(hub: Path, frames: torch.Tensor):
    tower = tam_tower(hub).to(torch.bfloat16)
    assert tower.dtype is torch.bfloat16
    assert tower(frames[:1]).dtype is torch.float32


@torch.no_grad()
def test_chunks_and_lists_change_nothing(hub: Path, frames: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    from tam_plugin.patches.llava_next.model import tower as tower_module

    tower = tam_tower(hub)
    whole = tower(frames)
    monkeypatch.setattr(tower_module, "FRAMES_PER_CHUNK", 2)
    torch.testing.assert_close(tower(frames), whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(tower(list(frames))), whole, atol=1e-5, rtol=0)


def test_checkpointing_leaves_gradients_as_they_are(hub: Path, frames: torch.Tensor):
    from tam_plugin.vision import collect_routing

    gradients = []
    for recompute in (False, True):
        tower = tam_tower(hub, tam_router_mode="top_k").requires_grad_(True).train()
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in tower.parameters():
                if parameter.shape == (4, 1152):
                    parameter.copy_(torch.randn_like(parameter) * 0.02)
        tower.vision_tower.vision_model.encoder.gradient_checkpointing = recompute
        with collect_routing(tower) as routing:
            features = tower(frames[:1])
        (features.square().mean() + routing.aux_loss(tower.tam_config.moe)).backward()
        gradients.append({name: parameter.grad for name, parameter in tower.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@torch.no_grad()
def test_dense_without_experts(hub: Path, host_tower, frames: torch.Tensor):
    tower = tam_tower(hub, tam_moe=False)
    assert not any("experts" in name for name in tower.state_dict())
    torch.testing.assert_close(tower(frames), host_tower(frames), atol=1e-5, rtol=0)


def test_built_on_meta_then_loaded(hub: Path, frames: torch.Tensor):
    from tam_plugin.patches.llava_next.model.tower import TamVisionTower

    tower = tam_tower(hub)
    with torch.device("meta"):
        empty = TamVisionTower(tower.tam_config)
    empty.load_state_dict(tower.state_dict(), assign=True)
    assert not list(empty.buffers())
    with torch.no_grad():
        assert torch.equal(empty.eval()(frames), tower(frames))


def test_keys_are_those_of_the_hosts_tower_but_for_the_mixture(hub: Path, host_tower):
    ours, theirs = set(tam_tower(hub).state_dict()), set(host_tower.state_dict())
    assert all(".mlp.gate." in name or ".mlp.experts." in name for name in ours - theirs)
    assert all(".mlp.fc1." in name or ".mlp.fc2." in name for name in theirs - ours)
