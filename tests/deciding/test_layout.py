"""Token layouts: one count, whatever asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.bounds import MAX_FRAMES
from tam_plugin.budget import BudgetPolicy, TokenLayout, register_reducer
from tam_plugin.budget.layout import NEWLINE_POSITIONS
from tam_plugin.budget.reducers import unregister_reducer
from tam_plugin.config import POOL_MODES, TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.onevision.tiny import demo_dense_model
from tam_plugin.patches.onevision.upgrade import upgrade_dense
from tam_plugin.taxonomy import TaskDistribution
from tam_plugin.vision import pool_tokens, with_newlines

LAYOUTS = st.builds(
    TokenLayout,
    grid=st.integers(4, 27),
    pool_mode=st.sampled_from(POOL_MODES),
    newline_position=st.sampled_from(NEWLINE_POSITIONS),
)


class Pairs:
    """Two neighbouring frames become their mean."""

    def shape(self, num_frames, tokens_per_frame):
        return -(-num_frames // 2), tokens_per_frame

    def __call__(self, tokens):
        return torch.stack([pair.mean(0) for pair in tokens.split(2)])


@pytest.fixture
def pairs():
    register_reducer("pairs", Pairs())
    yield "pairs"
    unregister_reducer("pairs")


@given(LAYOUTS, st.integers(1, 6), st.integers(1, 4))
def test_tokens_are_those_that_pooling_and_newlines_make(layout, frames, stride):
    pooled = pool_tokens(torch.zeros(frames, layout.grid**2, 2), stride, layout.pool_mode)
    made = with_newlines(pooled, torch.ones(2), layout.newline_position)
    assert len(made) == layout.count(frames, stride) == layout.budget(frames, stride).visual_tokens
    assert int(made.sum()) == 2 * (len(made) - pooled.shape[0] * pooled.shape[1])


@given(LAYOUTS, st.lists(st.tuples(st.integers(0, 65_535), st.integers(1, 4)), max_size=8))
def test_arrays_are_counted_as_numbers_are(layout, budgets):
    frames, strides = np.array([f for f, _ in budgets], np.uint16), np.array([s for _, s in budgets], np.uint8)
    assert layout.count(frames, strides).tolist() == [layout.count(f, s) for f, s in budgets]


@given(LAYOUTS, st.integers(1, 5_000), st.integers(1, 4))
def test_frames_within_are_the_most_that_fit(layout, tokens, stride):
    most = layout.frames_within(tokens, stride)
    assert layout.count(most + 1, stride) > tokens
    assert most == 0 or layout.count(most, stride) <= tokens


@pytest.mark.parametrize("newline", NEWLINE_POSITIONS)
def test_the_model_follows_the_layout_of_its_configuration(newline, pairs):
    dense, _ = demo_dense_model(seed=1, image_size=70)
    model = upgrade_dense(dense, TamConfig.from_dict({"projector": {"reducer": pairs}})).eval()
    model.config.newline_position = newline
    layout = model.config.token_layout
    assert (layout.reducer, layout.newline_position) == (pairs, newline)
    frames = torch.rand(5, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        plain = upgrade_dense(demo_dense_model(seed=1, image_size=70)[0], TamConfig()).eval()
        plain.config.newline_position = "no_token"
        whole = plain.model.get_video_tokens(frames, torch.tensor([5]), torch.tensor([2]))
        found = model.model.get_video_tokens(frames, torch.tensor([5]), torch.tensor([2]))
    reduced = Pairs()(whole.reshape(5, -1, whole.shape[-1]))
    assert layout.count(5, 2) == len(found) < layout.replace(reducer=None).count(5, 2)
    assert torch.allclose(found, with_newlines(reduced, model.model.image_newline, newline), atol=1e-5)


def test_freed_tokens_buy_frames(pairs):
    """The policy counts what the reducer leaves, so that twice the frames fit."""
    tight = TokenLayout(newline_position="no_token", context_tokens=4_000)
    asked = TaskDistribution.one_hot(4)
    alone = BudgetPolicy.from_yaml().adapted(tight).budget(asked, 600.0)
    reduced = BudgetPolicy.from_yaml().adapted(tight.replace(reducer=pairs)).budget(asked, 600.0)
    assert (alone.num_frames, alone.pool_stride) == (69, 4) and "69 taken" in alone.fallback
    assert (reduced.num_frames, reduced.pool_stride, reduced.fallback) == (120, 4, None)
    assert reduced.visual_tokens == 60 * 49


class First:
    """At most eight frames are kept, however many there are."""

    def shape(self, num_frames, tokens_per_frame):
        return min(num_frames, 8), tokens_per_frame

    def __call__(self, tokens):
        return tokens[:8]


def test_a_reducer_that_keeps_so_many_frames_lets_any_number_fit():
    register_reducer("first", First())
    try:
        layout = TokenLayout(newline_position="no_token", reducer="first")
        assert layout.frames_within(8 * 196, 2) == MAX_FRAMES
        assert layout.frames_within(8 * 196 - 1, 2) == 7
        assert layout.frames_within(195, 2) == 0
        found = BudgetPolicy.from_yaml().adapted(layout).budget(TaskDistribution.one_hot(4), 600.0)
        assert (found.num_frames, found.pool_stride, found.visual_tokens) == (120, 2, 8 * 196)
    finally:
        unregister_reducer("first")


def test_a_reducer_that_does_not_do_what_it_says_is_named(pairs):
    class Liar(First):
        def __call__(self, tokens):
            return tokens[:3]

    register_reducer("liar", Liar())
    try:
        dense, _ = demo_dense_model(seed=1, image_size=70)
        model = upgrade_dense(dense, TamConfig.from_dict({"projector": {"reducer": "liar"}})).eval()
        with pytest.raises(ConfigError, match=r"'liar' made \[3, 9, \d+\] of \[5, 9, \d+\]; its shape\(\) says \[5, 9"):
            model.model.get_video_tokens(torch.rand(5, 3, 70, 70), torch.tensor([5]), torch.tensor([2]))
    finally:
        unregister_reducer("liar")


def test_rows_need_square_frames():
    class Half:
        def shape(self, num_frames, tokens_per_frame):
            return num_frames, tokens_per_frame // 2

        def __call__(self, tokens):
            return tokens[:, : tokens.shape[1] // 2]

    register_reducer("half", Half())
    try:
        assert TokenLayout(reducer="half", newline_position="frame").count(2, 2) == 2 * (98 + 1)
        with pytest.raises(InputError, match="leaves 98 tokens per frame: newline position grid"):
            TokenLayout(reducer="half").count(2, 2)
    finally:
        unregister_reducer("half")
    with pytest.raises(ConfigError, match="reducer = 'half': none is registered"):
        TokenLayout(reducer="half")


def test_strides_of_another_model():
    """The default policy takes those that the model has and says where it would have taken another; a policy that
    somebody wrote must find all of its strides."""
    default, layout = BudgetPolicy.from_yaml(), TokenLayout(strides=(1, 2))
    found = default.adapted(layout).budget(TaskDistribution.one_hot(4), 60.0)
    assert found.pool_stride == 2 and "no projector for stride 3: stride 2 taken" in found.fallback
    assert default.adapted(layout).budget(TaskDistribution.one_hot(1), 10.0).fallback is None
    written = BudgetPolicy.from_dict(default.to_dict())
    with pytest.raises(ConfigError, match=r"groups.balanced.strides = \[1, 2, 3\]: the model has projectors for"):
        written.adapted(layout)
    with pytest.raises(ConfigError, match=r"groups.resolution.strides = \[1, 2\]"):
        default.adapted(TokenLayout(strides=(3, 4)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"grid": 0}, "grid = 0"),
        ({"grid": 2.5}, "grid = 2.5"),
        ({"pool_mode": "mean"}, "pool_mode = 'mean'"),
        ({"newline_position": "row"}, "newline position 'row'"),
        ({"context_tokens": -1}, "context_tokens = -1"),
    ],
)
def test_layouts_that_cannot_be(values, words):
    with pytest.raises(InputError, match=words):
        TokenLayout(**values)
