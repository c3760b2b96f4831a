"""The gate of Eq. 2, its modes and its noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_plugin.config import MoeConfig
from tam_plugin.vision.losses import assignment_mask, balance_loss, z_loss
from tam_plugin.vision.router import Router

D = 12


def router(**moe) -> Router:
    torch.manual_seed(0)
    return Router(D, MoeConfig(router_init_std=0.7, **moe))


def numpy_logits(gate: Router, tokens: torch.Tensor) -> np.ndarray:
    return tokens.double().numpy() @ gate.weight.detach().double().numpy().T


@settings(max_examples=30, deadline=None)
@given(num_tokens=st.integers(1, 30), num_experts=st.integers(1, 9), data=st.data())
def test_weights_are_the_softmax_over_the_kept_logits(num_tokens, num_experts, data):
    top_k = data.draw(st.integers(1, num_experts))
    mode = data.draw(st.sampled_from(["top_k", "lowest_k", "random_k"]))
    gate = router(num_experts=num_experts, top_k=top_k, router_mode=mode)
    tokens = torch.randn(num_tokens, D)
    logits = numpy_logits(gate, tokens)
    routing = gate(tokens)
    indices = routing.indices.numpy()
    assert all(len(set(row)) == top_k for row in indices)
    kept = np.take_along_axis(logits, indices, axis=1)
    expected = np.exp(kept) / np.exp(kept).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(routing.weights.detach().numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(routing.weights.detach().sum(1).numpy(), 1, atol=1e-6)
    ranked = np.sort(logits, axis=1)
    if mode == "top_k":
        np.testing.assert_allclose(np.sort(kept, axis=1), ranked[:, num_experts - top_k :], atol=1e-5)
    if mode == "lowest_k":
        np.testing.assert_allclose(np.sort(kept, axis=1), ranked[:, :top_k], atol=1e-5)


def test_random_k_takes_every_expert_equally_often_and_repeats_with_the_seed():
    gate = router(num_experts=5, top_k=2, router_mode="random_k")
    tokens = torch.randn(20_000, D)
    torch.manual_seed(3)
    first = gate(tokens).indices
    torch.manual_seed(3)
    assert torch.equal(gate(tokens).indices, first)
    load = torch.bincount(first.flatten(), minlength=5) / first.numel()
    torch.testing.assert_close(load, torch.full((5,), 0.2), atol=0.01, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_arithmetic_is_float32_under_autocast_and_low_precision_parameters(dtype):
    gate = router().to(dtype)
    tokens = torch.randn(50, D).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        routing = gate(tokens)
    assert {t.dtype for t in (routing.weights, routing.logits, routing.probabilities)} == {torch.float32}
    np.testing.assert_allclose(routing.logits.detach().numpy(), numpy_logits(gate, tokens), atol=1e-5)


def test_noise_moves_logits_in_training_only():
    gate = router(router_noise_std=0.5)
    tokens = torch.randn(4000, D)
    clean = numpy_logits(gate, tokens)
    np.testing.assert_allclose(gate.eval()(tokens).logits.detach().numpy(), clean, atol=1e-5)
    noise = gate.train()(tokens).logits.detach().numpy() - clean
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 0.5) < 0.02


@settings(max_examples=30, deadline=None)
@given(num_tokens=st.integers(1, 40), num_experts=st.integers(1, 8), seed=st.integers(0, 99), data=st.data())
def test_losses_equal_a_float64_reference(num_tokens, num_experts, seed, data):
    top_k = data.draw(st.integers(1, num_experts))
    torch.manual_seed(seed)
    logits = 3 * torch.randn(num_tokens, num_experts)
    indices = logits.topk(top_k).indices
    plain = logits.double().numpy()
    exponentials = np.exp(plain)
    mean_probability = (exponentials / exponentials.sum(1, keepdims=True)).mean(0)
    load = np.bincount(indices.numpy().ravel(), minlength=num_experts) / (num_tokens * top_k)
    mask = assignment_mask(indices, num_experts)
    balance = balance_loss(logits.softmax(-1), mask, top_k)
    assert balance.dtype == torch.float32
    assert balance.item() == pytest.approx(num_experts * (load * mean_probability).sum(), abs=1e-5)
    assert z_loss(logits).item() == pytest.approx((np.log(exponentials.sum(1)) ** 2).mean(), rel=1e-5, abs=1e-5)


def test_balance_is_one_when_uniform_and_e_over_k_at_collapse():
    uniform = torch.full((6, 6), 1 / 6)
    rows = torch.arange(6)
    spread = assignment_mask(torch.stack([rows, (rows + 1) % 6], dim=1), 6)
    assert balance_loss(uniform, spread, 2).item() == pytest.approx(1)
    two = torch.tensor([0.5, 0.5, 0, 0, 0, 0]).expand(6, 6)
    assert balance_loss(two, assignment_mask(torch.tensor([[0, 1]]).expand(6, 2), 6), 2).item() == pytest.approx(3)
