"""Grouped experts, reference experts and a plain float64 computation agree, gradients too."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError
from tam_plugin.vision import MoeMlp, collect_routing, expert_backends
from tam_plugin.vision.experts import StackedExperts

from .conftest import gradients, perturb

D, INTERMEDIATE, OUT = 16, 48, 24


def mixture(num_experts: int = 4, top_k: int = 2, seed: int = 0, **moe) -> MoeMlp:
    torch.manual_seed(seed)
    config = MoeConfig(num_experts=num_experts, top_k=top_k, router_init_std=0.5, **moe)
    model = MoeMlp(nn.Linear(D, INTERMEDIATE), nn.GELU(approximate="tanh"), nn.Linear(INTERMEDIATE, OUT), config)
    perturb(model.experts, 0.3)
    return model


def with_backend(model: MoeMlp, backend: str) -> MoeMlp:
    other = copy.deepcopy(model)
    other.experts.backend = backend
    return other


def run(model: MoeMlp, tokens: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    tokens = tokens.clone().requires_grad_()
    out = model(tokens)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float32).view_as(out)
    (out.float() * weights).sum().backward()
    return out.detach(), {"tokens": tokens.grad, **gradients(model)}


def token_by_token(model: MoeMlp, tokens: torch.Tensor) -> torch.Tensor:
    """Eq. 2 for each token alone, in float64."""
    experts = model.experts
    rows = []
    for token in tokens.double().reshape(-1, D):
        logits = model.gate.weight.double() @ token
        chosen = logits.argsort(descending=True)[: model.config.top_k]
        total = logits[chosen].exp().sum()
        row = torch.zeros(OUT, dtype=torch.float64)
        for e in chosen:
            hidden = experts.fc1.weight[e].double() @ token + experts.fc1.bias[e].double()
            hidden = nn.functional.gelu(hidden, approximate="tanh")
            row += logits[e].exp() / total * (experts.fc2.weight[e].double() @ hidden + experts.fc2.bias[e].double())
        rows.append(row)
    return torch.stack(rows).view(*tokens.shape[:-1], OUT)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_grouped_equals_reference_with_gradients(data):
    num_experts = data.draw(st.integers(1, 8), label="E")
    top_k = data.draw(st.integers(1, num_experts), label="K")
    num_tokens = data.draw(st.integers(1, 40), label="N")
    model = mixture(num_experts, top_k, seed=data.draw(st.integers(0, 99), label="seed"))
    tokens = torch.randn(1, num_tokens, D)
    out, grads = run(with_backend(model, "grouped"), tokens)
    expected, expected_grads = run(with_backend(model, "reference"), tokens)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, expected_grads[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("backend", ["grouped", "reference"])
@pytest.mark.parametrize("num_experts, top_k", [(4, 1), (4, 2), (4, 4), (8, 2), (1, 1)])
def test_equals_the_formula_token_by_token(backend, num_experts, top_k):
    model = mixture(num_experts, top_k, backend=backend)
    tokens = torch.randn(2, 7, D)
    torch.testing.assert_close(model(tokens).double(), token_by_token(model, tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["grouped", "reference"])
def test_an_expert_without_tokens_gets_a_zero_gradient(backend):
    model = mixture(4, 1, backend=backend)
    with torch.no_grad():
        model.gate.weight.zero_()
        model.gate.weight[2] = 1.0
    _, grads = run(model, torch.rand(1, 9, D) + 0.1)  # positive tokens: expert 2 wins every time
    for name in ("experts.fc1.weight", "experts.fc2.weight", "experts.fc1.bias", "experts.fc2.bias"):
        used = grads[name].flatten(1).abs().sum(1) > 0
        assert used.tolist() == [False, False, True, False], name


def test_frozen_experts_still_pass_gradients_to_tokens():
    model = mixture(backend="grouped")
    model.experts.requires_grad_(False)
    tokens = torch.randn(1, 6, D)
    _, grads = run(model, tokens)
    _, expected = run(with_backend(model, "reference"), tokens)
    assert grads.keys() == expected.keys() == {"tokens", "gate.weight"}
    torch.testing.assert_close(grads["tokens"], expected["tokens"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["grouped", "reference"])
def test_no_tokens_give_no_tokens(backend):
    model = mixture(backend=backend).train()
    with collect_routing(model) as routing:
        out = model(torch.zeros(0, 5, D))
    assert out.shape == (0, 5, OUT)
    assert routing.aux_loss(MoeConfig()).item() == 0
    out.sum().backward()
    assert all(grad.abs().sum() == 0 for grad in gradients(model).values())


@pytest.mark.parametrize("backend", ["grouped", "reference"])
def test_bfloat16_autocast_matches_float32_within_bfloat16(backend):
    model = mixture(backend=backend)
    tokens = torch.randn(2, 9, D)
    exact = model(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, grads = run(model, tokens)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), exact, atol=0.05, rtol=0.05)
    assert {g.dtype for g in grads.values()} == {torch.float32}


@pytest.mark.parametrize("dtype, width", [(torch.float64, 16), (torch.float32, 15)])
def test_where_grouped_cannot_run_auto_says_so_and_grouped_refuses(dtype, width):
    layers = nn.Linear(width, 32, dtype=dtype), nn.GELU(), nn.Linear(32, width, dtype=dtype)
    auto = MoeMlp(*layers, MoeConfig())
    assert auto.experts.backend_in_use == "reference"
    assert "backend=auto, backend_in_use=reference" in repr(auto)
    tokens = torch.randn(1, 3, width, dtype=dtype)
    dense = layers[2](layers[1](layers[0](tokens)))
    torch.testing.assert_close(auto(tokens), dense, atol=1e-6, rtol=0)
    with pytest.raises(ConfigError, match=r"MoeConfig.backend = 'grouped': .*; use 'auto' or 'reference'") as caught:
        MoeMlp(*layers, MoeConfig(backend="grouped"))(tokens)
    assert "\n" not in str(caught.value)


def wide(**moe) -> MoeMlp:
    """An upcycled layer (D 192, I 768) whose size tells: of its 4 experts each has N / 2 rows."""
    torch.manual_seed(0)
    model = MoeMlp(nn.Linear(192, 768), nn.GELU(), nn.Linear(768, 192), MoeConfig(router_init_std=0.5, **moe))
    perturb(model.experts, 0.05)
    return model


@pytest.fixture
def taken(monkeypatch) -> list[str]:
    """The ways that forwards of experts took, in order."""
    ways: list[str] = []
    for way in ("grouped", "reference"):
        original = getattr(StackedExperts, f"_{way}")
        monkeypatch.setattr(
            StackedExperts, f"_{way}", lambda *args, o=original, way=way: (ways.append(way), o(*args))[1]
        )
    return ways


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_auto_on_a_cpu_is_grouped_only_where_few_rows_train_wide_weights(taken, dtype):
    assert expert_backends()["grouped"].startswith("ready")
    model, few, many = wide().to(dtype), torch.randn(1, 128, 192, dtype=dtype), torch.randn(1, 130, 192, dtype=dtype)
    with torch.no_grad():
        model(few)
        model(many)
    assert taken == ["reference"] * 2 and model.experts.backend_in_use == "reference"
    model(few)
    model(many)
    assert taken[2:] == ["grouped", "reference"]
    mixture().to(dtype)(torch.randn(1, 2, D, dtype=dtype))  # narrow
    model.requires_grad_(False)
    model(few.requires_grad_())  # only the tokens want a gradient
    assert taken[4:] == ["reference"] * 2


@pytest.mark.parametrize("tokens", [128, 130])
def test_auto_equals_both_ways(tokens):
    model, inputs = wide(), torch.randn(1, tokens, 192)
    out, grads = run(model, inputs)
    for backend in ("grouped", "reference"):
        expected, expected_grads = run(with_backend(model, backend), inputs)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, expected_grads[name], atol=1e-3, rtol=1e-4)


def test_auto_compiles_into_one_graph_on_a_cpu():
    torch._dynamo.reset()
    model = wide().requires_grad_(False)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for count in (128, 200):
        tokens = torch.randn(1, count, 192)
        torch.testing.assert_close(compiled(tokens), model(tokens), atol=1e-5, rtol=1e-5)


def test_layers_without_bias_and_unaligned_storage():
    fc1, fc2 = nn.Linear(D, INTERMEDIATE, bias=False), nn.Linear(INTERMEDIATE, OUT, bias=False)
    model = MoeMlp(fc1, nn.GELU(), fc2, MoeConfig(backend="grouped"))
    shifted = torch.empty(model.experts.fc1.weight.numel() + 1)[1:].view_as(model.experts.fc1.weight)
    model.experts.fc1.weight.data = shifted.copy_(model.experts.fc1.weight.data)  # as a memory-mapped file leaves it
    tokens = torch.randn(1, 5, D)
    torch.testing.assert_close(model(tokens), fc2(nn.functional.gelu(fc1(tokens))), atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU (grouped GEMM in bfloat16)")
def test_grouped_on_cuda_equals_reference():
    model = mixture().to("cuda", torch.bfloat16)
    tokens = torch.randn(2, 729, D, device="cuda", dtype=torch.bfloat16)
    grouped = with_backend(model, "grouped")
    assert with_backend(model, "auto").experts.backend_in_use == "grouped"
    torch.testing.assert_close(grouped(tokens), with_backend(model, "reference")(tokens), atol=0.05, rtol=0.05)
