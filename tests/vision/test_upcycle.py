"""Upcycling keeps what the dense encoder computes, in transformers' SigLIP and in the host's copy of it."""

from __future__ import annotations

import copy
import importlib
import os
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from tam_plugin import TamConfig, upcycle_vision_encoder
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.vision import MoeMlp, encoder_layers, moe_layers

from .conftest import build_siglip, perturb, upcycled

LLAVA_NEXT = Path(os.environ.get("LLAVA_NEXT_HOME", "~/.cache/tam_plugin/LLaVA-NeXT")).expanduser()


@pytest.mark.parametrize("backend", ["grouped", "reference", "auto"])
@pytest.mark.parametrize("top_k, num_experts", [(1, 4), (2, 4), (4, 4), (2, 8)])
def test_equals_dense_on_the_real_grid(backend, top_k, num_experts):
    dense = build_siglip(image_size=54, patch_size=2)  # 27 x 27 patches
    model = upcycled(dense, backend=backend, top_k=top_k, num_experts=num_experts)
    pixels = torch.randn(2, 3, 54, 54)
    with torch.no_grad():
        expected, found = dense(pixels).last_hidden_state, model(pixels).last_hidden_state
    assert found.shape == (2, 729, 32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["random_k", "lowest_k"])
def test_other_router_modes_equal_dense_too(mode):
    dense = build_siglip()
    pixels = torch.randn(3, 3, 12, 12)
    with torch.no_grad():
        found = upcycled(dense, router_mode=mode)(pixels).last_hidden_state
        torch.testing.assert_close(found, dense(pixels).last_hidden_state, atol=1e-5, rtol=0)


def test_equals_dense_in_the_hosts_own_siglip(monkeypatch):
    if not (LLAVA_NEXT / "llava").is_dir():
        pytest.skip(f"no LLaVA-NeXT checkout at {LLAVA_NEXT} (LLAVA_NEXT_HOME)")
    # Only the encoder's file is wanted: package shells stand in for the __init__ files that import every model.
    for name in ("llava", "llava.model", "llava.model.multimodal_encoder"):
        shell = types.ModuleType(name)
        shell.__path__ = [str(LLAVA_NEXT.joinpath(*name.split(".")))]
        monkeypatch.setitem(sys.modules, name, shell)
    try:
        host = importlib.import_module("llava.model.multimodal_encoder.siglip_encoder")
    except ImportError as error:
        pytest.skip(f"the host's siglip_encoder cannot be imported here: {error}")
    finally:
        for name in [n for n in sys.modules if n.startswith("llava.")]:
            monkeypatch.delitem(sys.modules, name, raising=False)
    torch.manual_seed(0)
    config = host.SigLipVisionConfig(
        hidden_size=32, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=12, patch_size=4
    )
    dense = host.SigLipVisionModel(config).eval()
    model = upcycled(dense)
    pixels = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(model(pixels).last_hidden_state, dense(pixels).last_hidden_state, atol=1e-5, rtol=0)
    assert len(list(moe_layers(model))) == 3


def test_every_expert_is_a_copy_and_only_gates_are_new():
    dense = build_siglip()
    model = upcycled(dense, num_experts=3)
    old, new = dense.state_dict(), model.state_dict()
    for number, layer in enumerate(encoder_layers(model)):
        for name in ("fc1", "fc2"):
            prefix = next(k for k in old if k.endswith(f"layers.{number}.mlp.{name}.weight")).removesuffix("weight")
            for kind in ("weight", "bias"):
                stacked = getattr(getattr(layer.mlp.experts, name), kind)
                assert torch.equal(stacked, old[prefix + kind].expand_as(stacked))
    added = {key.split(".mlp.")[1] for key in new.keys() - old.keys()}
    assert added == {"gate.weight", *(f"experts.{fc}.{kind}" for fc in ("fc1", "fc2") for kind in ("weight", "bias"))}
    gates = torch.stack([layer.gate.weight for layer in moe_layers(model)])
    assert gates.shape == (3, 3, 32)
    assert 0.015 < gates.std().item() < 0.025


def test_keeps_dtype_and_frozen_weights():
    dense = build_siglip().to(torch.bfloat16).requires_grad_(False)
    model = upcycled(dense)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_a_model_built_on_meta_takes_the_weights_of_an_upcycled_one():
    model = upcycled(build_siglip())
    perturb(model)
    with torch.device("meta"):
        empty = upcycled(build_siglip())
    assert {p.device.type for p in moe_layers(empty).__next__().parameters()} == {"meta"}
    empty.load_state_dict(model.state_dict(), assign=True, strict=False)
    for mine, theirs in zip(moe_layers(empty), moe_layers(model), strict=True):
        tokens = torch.randn(2, 5, 32)
        assert torch.equal(mine(tokens), theirs(tokens))


def test_state_dict_round_trip():
    model = upcycled(build_siglip())
    perturb(model)
    again = upcycled(build_siglip())
    again.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    pixels = torch.randn(1, 3, 12, 12)
    with torch.no_grad():
        assert torch.equal(again(pixels).last_hidden_state, model(pixels).last_hidden_state)


def test_to_dense_gives_an_expert_or_the_average_back():
    dense = build_siglip()
    mlp = encoder_layers(dense)[0].mlp
    mixture = next(moe_layers(upcycled(dense)))
    for fc, found in zip((mlp.fc1, mlp.fc2), mixture.to_dense(), strict=True):
        torch.testing.assert_close(found.weight, fc.weight)
    perturb(mixture)
    fc1, fc2 = mixture.to_dense(2)
    assert torch.equal(fc1.weight, mixture.experts.fc1.weight[2])
    assert torch.equal(fc2.bias, mixture.experts.fc2.bias[2])
    torch.testing.assert_close(mixture.to_dense()[0].weight, mixture.experts.fc1.weight.mean(0))
    with pytest.raises(InputError, match="expert 4: expected 0 to 3"):
        mixture.to_dense(4)


def test_disabled_or_repeated_upcycling_changes_nothing():
    model = build_siglip()
    upcycle_vision_encoder(model, TamConfig.from_dict({"moe": {"enabled": False}}))
    assert list(moe_layers(model)) == []
    upcycle_vision_encoder(model, TamConfig())
    before = [id(layer) for layer in moe_layers(model)]
    upcycle_vision_encoder(model, TamConfig())
    assert [id(layer) for layer in moe_layers(model)] == before


def test_another_mixture_is_refused_and_the_model_left_as_it_was():
    model = upcycled(build_siglip())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=r"layer 0 is a mixture already, top_k 2 of 4 .* asked for top_k 2 of 8"):
        upcycle_vision_encoder(model, TamConfig.from_dict({"moe": {"num_experts": 8}}))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_not_a_siglip_is_refused_by_name():
    with pytest.raises(ConfigError, match="Linear holds no encoder layers"):
        upcycle_vision_encoder(nn.Linear(2, 2), TamConfig())
    model = build_siglip()
    layers = encoder_layers(model)
    layers[2].mlp = nn.Sequential(nn.Linear(32, 32))
    with pytest.raises(ConfigError, match="layer 2 has mlp = Sequential: expected SigLIP's MLP"):
        upcycle_vision_encoder(model, TamConfig())
    assert not any(isinstance(layer.mlp, MoeMlp) for layer in layers)
