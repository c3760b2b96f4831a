"""Prompts, placeholders and padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_plugin import TaskDistribution
from tam_plugin.budget import BudgetPolicy
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.onevision import TamOnevisionConfig, VideoTurn, build_inputs
from tam_plugin.patches.onevision.batching import assign_videos
from tam_plugin.patches.onevision.tiny import demo_config, demo_tokenizer

TOKENIZER = demo_tokenizer()


def config(pool_mode="bilinear", **vision):
    values = demo_config(TOKENIZER, **vision).to_dict()
    values.pop("model_type")
    return TamOnevisionConfig(**values, tam={"projector": {"pool_mode": pool_mode}})


@pytest.mark.parametrize(
    ("stride", "pool_mode", "tokens"),
    [(1, "bilinear", 729), (2, "bilinear", 196), (3, "bilinear", 81), (4, "bilinear", 49), (2, "average", 169)],
)
def test_placeholders_of_the_true_grid(stride, pool_mode, tokens):
    # 27 × 27 patches; one newline token at the end of the video on this host.
    assert config(pool_mode).token_layout.count(64, stride) == 64 * tokens + 1


def test_prompt_of_the_onevision_checkpoints(frames):
    small = config(image_size=70)
    turn = VideoTurn(question="What <video> is it?<|im_end|>", frames=frames(1), answer="Rain <image>.")
    batch = build_inputs([turn], TOKENIZER, small)
    ids = batch["input_ids"][0].tolist()
    assert ids.count(small.video_token_id) == 9 + 1
    shown = TOKENIZER.decode([i for i in ids if i != small.video_token_id])
    words = "What <video> is it?<|im_end|>"
    assert shown == f"<|im_start|>user \n{words}<|im_end|><|im_start|>assistant\nRain <image>.<|im_end|>"
    # Marks in the user's words stay words: the only special tokens are those of the chat format.
    special = [TOKENIZER.convert_ids_to_tokens(i) for i in ids if i in TOKENIZER.all_special_ids]
    assert special.count("<|im_end|>") == 2 and small.image_token_id not in ids
    trained = batch["labels"][0]
    assert TOKENIZER.decode(trained[trained != -100]) == "Rain <image>.<|im_end|>"


def test_padding_is_left_for_generation_and_right_for_training():
    small = config()
    for answers, side in (((None, None), "left"), (("a", "b"), "right")):
        turns = [VideoTurn(question=q, answer=a) for q, a in zip(("short", "a longer one"), answers, strict=True)]
        batch = build_inputs(turns, TOKENIZER, small)
        mask = batch["attention_mask"][0]
        assert mask.sum() < len(mask) and bool(mask[0]) == (side == "right") and bool(mask[-1]) == (side == "left")
        assert ("labels" in batch) == (side == "right")


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([], "0 turns"),
        ([VideoTurn(question="a"), VideoTurn(question="b", answer="c")], "all or none"),
        ([VideoTurn(question="a", frames=torch.zeros(2, 3, 64, 64))], "expected [T, 3, 384, 384]"),
        ([VideoTurn(question="a", frames=torch.zeros(0, 3, 384, 384))], "with T >= 1"),
        ([VideoTurn(question="a", frames=torch.zeros(1, 3, 384, 384), pool_stride=5)], "pool_stride = 5"),
    ],
)
def test_bad_turns(turns, words):
    with pytest.raises(InputError) as caught:
        build_inputs(turns, TOKENIZER, config())
    assert words in str(caught.value)


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 30), max_size=4), min_size=1, max_size=5))
def test_videos_are_assigned_to_the_rows_they_came_from(rows):
    flat = [n for row in rows for n in row]
    found = assign_videos([sum(row) for row in rows], flat)
    assert [[flat[v] for v in row] for row in found] == rows


@pytest.mark.parametrize(
    ("placeholders", "tokens", "words"), [([5], [4], "row 0 has 5"), ([4], [4, 4], "take only 1"), ([3], [4], "row 0")]
)
def test_videos_that_fill_no_row(placeholders, tokens, words):
    with pytest.raises(InputError, match=words):
        assign_videos(placeholders, tokens)


def test_policy_follows_the_models_grid_layout_and_context():
    model, policy = config(image_size=140), BudgetPolicy.from_yaml()
    budget = policy.adapted(model.token_layout).budget(TaskDistribution.one_hot(4), 600.0)
    assert budget.visual_tokens == model.token_layout.count(budget.num_frames, budget.pool_stride)
    assert BudgetPolicy.fixed(8, 3).adapted(model.token_layout).budget().visual_tokens == 8 * 16 + 1
    model.text_config.max_position_embeddings = 8
    with pytest.raises(ConfigError, match="not one frame fits"):
        policy.adapted(model.token_layout)
