"""Figures worked by hand, and how the figures must grow."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin import TamConfig
from tam_plugin.budget import TokenLayout
from tam_plugin.eval.flops import from_preset
from tam_plugin.flops import (
    EncoderShape,
    LanguageShape,
    ModelShape,
    ProjectorShape,
    count_flops,
    count_parameters,
    decode_flops,
    pooling_operations,
    prefill_flops,
)

SMALL = ModelShape(
    encoder=EncoderShape(
        hidden_size=4, intermediate_size=6, num_layers=2, grid=3, patch_size=2, num_experts=4, top_k=2, routed=True
    ),
    projector=ProjectorShape(layers=((4, 8), (8, 8)), copies=4),
    language=LanguageShape(
        hidden_size=8, num_layers=3, num_heads=2, num_kv_heads=1, head_dim=4, vocab_size=10, intermediate_size=12
    ),
)
SEVEN = from_preset("llava-video-7b").model
POOLED_FIRST = from_preset(
    "llava-video-7b", TamConfig.from_dict({"projector": {"pool_order": "before_projector"}})
).model
BUDGET = TokenLayout(grid=3, newline_position="no_token").budget(5, 2)
BUDGETS = st.builds(
    lambda frames, stride, newline: TokenLayout(newline_position=newline).budget(frames, stride),
    st.integers(1, 200),
    st.integers(1, 4),
    st.sampled_from(["grid", "one_token"]),
)


def test_every_part():
    flops = count_flops(SMALL, BUDGET, text_tokens=2, new_tokens=3)
    # Nine patches of 12 values to 4; then, in both layers, four 4 × 4 projections, scores and sums over 9 × 9 pairs
    # and two experts of two 4 × 6 matrices.
    assert flops.encoder == 5 * (2 * 9 * 12 * 4 + 2 * (4 * 2 * 9 * 16 + 2 * 2 * 81 * 4 + 2 * 2 * 2 * 9 * 24))
    assert flops.gates == 5 * 2 * (2 * 9 * 4 * 4)
    assert flops.projector == 5 * 9 * 2 * (32 + 64)
    # 5 frames of 2 × 2 tokens and two of text; q and o are 8 × 8, k and v 8 × 4, the MLP three times 8 × 12.
    weights = 3 * (2 * 64 + 2 * 32 + 3 * 96)
    assert flops.prefill == 22 * (2 * weights + 4) + 3 * 4 * 22 * 22 * 8 + 2 * 8 * 10
    assert flops.decode == 2 * (2 * weights + 4 + 2 * 80) + 3 * 4 * 8 * (23 + 24)
    assert flops.pooling == 5 * 4 * 8 * 7
    assert flops.total == flops.encoder + flops.gates + flops.projector + flops.prefill + flops.decode


def test_causal_attention_leaves_the_triangle():
    full, causal = (prefill_flops(SMALL.language, 22, attention=kind) for kind in ("full", "causal"))
    assert full - causal == 3 * 4 * 8 * (22 * 21 // 2)


def test_pooling_before_the_projector():
    first = dataclasses.replace(SMALL, projector=dataclasses.replace(SMALL.projector, pool_first=True))
    assert count_flops(first, BUDGET).projector * 9 == count_flops(SMALL, BUDGET).projector * 4
    assert pooling_operations(first, BUDGET) == 5 * 4 * 4 * 7
    assert pooling_operations(SMALL, TokenLayout(grid=3).budget(5, 1)) == 0


def test_a_mixture_of_language_experts_by_hand():
    sparse = dataclasses.replace(SMALL.language, sparse_layers=1, num_experts=5, top_k=2, expert_size=7, shared_size=9)
    one = 2 * 8 * 5 + 2 * (2 * 3 * 8 * 7) + 2 * 3 * 8 * 9 + 2 * 8  # router, two experts, the shared one and its gate
    assert decode_flops(sparse, 0) - decode_flops(SMALL.language, 0) == one - 2 * 3 * 8 * 12


def test_parameters_by_hand():
    counts = count_parameters(SMALL)
    expert = 4 * 6 + 6 + 6 * 4 + 4
    layer = 4 * (16 + 4) + 2 * 2 * 4 + 4 * 4
    tower = 12 * 4 + 4 + 9 * 4 + 2 * 4 + 2 * layer
    assert counts["tower"] == {"total": tower + 8 * expert, "activated": tower + 4 * expert}
    one = 32 + 8 + 64 + 8
    assert counts["projectors"] == {"total": 4 * one, "activated": one}
    language = 3 * (2 * 64 + 2 * 32 + 3 * 96 + 2 * 8) + 8 + 2 * 80 + 8  # norms, embeddings, the newline
    assert counts["language_model"] == {"total": language, "activated": language}


def test_published_parameters():
    """Qwen2-7B has 7,615,616,512 parameters, Qwen2-72B 72,706,203,648: the sizes of their published files."""
    for preset, published, hidden in (
        ("llava-video-7b", 7_615_616_512, 3584),
        ("llava-video-72b", 72_706_203_648, 8192),
    ):
        counts = count_parameters(from_preset(preset).model)
        assert counts["language_model"]["total"] == published + hidden  # and one newline token
    upgraded, dense = (count_parameters(m)["all"]["total"] for m in (SEVEN, SEVEN.dense()))
    # Three copies of each of 26 MLPs and of the projector more than the dense model.
    grown = 3 * 26 * (2 * 1152 * 4304 + 1152 + 4304) + 26 * 4 * 1152 + 3 * (1152 * 3584 + 3584**2 + 2 * 3584)
    assert upgraded - dense == grown


@given(BUDGETS, st.integers(1, 64))
def test_more_frames_cost_more(budget, more):
    larger = TokenLayout().budget(budget.num_frames + more, budget.pool_stride)
    smaller = TokenLayout().budget(budget.num_frames, budget.pool_stride)
    a, b = count_flops(SEVEN, smaller), count_flops(SEVEN, larger)
    assert all(x <= y for x, y in zip(dataclasses.astuple(a), dataclasses.astuple(b), strict=True))
    assert a.encoder < b.encoder and a.prefill < b.prefill
    assert b.encoder * budget.num_frames == a.encoder * larger.num_frames


@given(BUDGETS, st.integers(1, 2), st.integers(4, 16))
def test_linear_in_the_experts_taken(budget, k, experts):
    one, two, three = (count_flops(SEVEN.with_experts(experts, n), budget).total for n in (k, k + 1, k + 2))
    assert two - one == three - two == budget.num_frames * 26 * 4 * 729 * 1152 * 4304


@given(BUDGETS, st.integers(0, 500), st.integers(1, 50))
def test_an_answer_costs_what_its_steps_cost(budget, text, new_tokens):
    prompt = budget.visual_tokens + text
    whole = count_flops(SEVEN, budget, text_tokens=text, new_tokens=new_tokens)
    assert whole.decode == sum(decode_flops(SEVEN.language, prompt + step) for step in range(new_tokens - 1))
    # A step after n tokens is the last row of a causal prefill over n + 1, with its output layer.
    longer, shorter = (prefill_flops(SEVEN.language, n, attention="causal") for n in (prompt + 1, prompt))
    assert decode_flops(SEVEN.language, prompt) == longer - shorter + 2 * 3584 * 152064


@given(BUDGETS)
def test_pooling_first_is_never_dearer(budget):
    cheap, dear = (count_flops(model, budget).total for model in (POOLED_FIRST, SEVEN))
    assert cheap <= dear and (cheap == dear) == (budget.pool_stride == 1)


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 5), (4, 0), (0, 0)])
def test_experts_that_cannot_be_taken(num_experts, top_k):
    with pytest.raises(ValueError, match="expected 1 <= top_k <= num_experts"):
        SMALL.with_experts(num_experts, top_k)
