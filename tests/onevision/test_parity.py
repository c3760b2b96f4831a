"""A freshly upgraded model computes what the unpatched host computes; a batch, what its rows compute alone."""

from __future__ import annotations

import pytest
import torch

from tam_plugin.errors import InputError
from tam_plugin.patches.onevision import VideoTurn, build_inputs


@torch.no_grad()
def test_upgraded_equals_the_host_at_stride_2(dense_and_tokenizer, make_tam, frames):
    dense, tokenizer = dense_and_tokenizer
    model = make_tam()
    inputs = build_inputs([VideoTurn(question="What?", frames=frames(64))], tokenizer, model.config)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    host = dense(**text, pixel_values_videos=frames(64)[None]).logits
    assert (model(**inputs).logits - host).abs().max() <= 1e-5
    # The host's own call, without counts or strides, means the host's stride 2.
    assert (model(**text, pixel_values_videos=frames(64)[None]).logits - host).abs().max() <= 1e-5


def test_upgraded_generates_the_hosts_tokens(dense_and_tokenizer, make_tam, frames):
    dense, tokenizer = dense_and_tokenizer
    model = make_tam()
    inputs = build_inputs([VideoTurn(question="What?", frames=frames(8))], tokenizer, model.config)
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    host = dense.generate(**text, pixel_values_videos=frames(8)[None], max_new_tokens=12, do_sample=False)
    assert torch.equal(model.generate(**inputs, max_new_tokens=12, do_sample=False), host)


@torch.no_grad()
def test_upgraded_equals_the_host_on_images(dense_and_tokenizer, make_tam):
    dense, tokenizer = dense_and_tokenizer
    model = make_tam()
    inputs = image_row(dense, tokenizer)
    assert (model(**inputs).logits - dense(**inputs).logits).abs().max() <= 1e-5


def image_row(dense, tokenizer, seed=5):
    """A row with one image, placeholders counted by the host's own packing."""
    pixels = torch.randn(1, 2, 3, 70, 70, generator=torch.Generator().manual_seed(seed))
    sizes = torch.tensor([[70, 70]])
    with torch.no_grad():
        packed = dense.model.get_image_features(pixels, sizes)
    count = len(getattr(packed, "pooler_output", packed)[0])
    words = tokenizer("Describe it.")["input_ids"]
    ids = torch.tensor([[dense.config.image_token_id] * count + words])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "image_sizes": sizes,
    }


@torch.no_grad()
@pytest.mark.parametrize("pool_order", ["after_projector", "before_projector"])
def test_a_mixed_batch_gives_what_each_row_gives_alone(dense_and_tokenizer, make_tam, frames, pool_order):
    dense, tokenizer = dense_and_tokenizer
    model = make_tam(diverge=True, projector={"pool_order": pool_order})
    turns = [
        VideoTurn(question="Fine?", frames=frames(2, 1), pool_stride=1),
        VideoTurn(question="No video here."),
        VideoTurn(question="Coarse, and rather longer?", frames=frames(7, 2), pool_stride=4),
        VideoTurn(question="Middle?", frames=frames(3, 3), pool_stride=3),
    ]
    alone = [model(**build_inputs([turn], tokenizer, model.config)).logits[0] for turn in turns]
    image = image_row(dense, tokenizer)
    alone.append(model(**image).logits[0])

    batch = build_inputs(turns, tokenizer, model.config)
    longest = batch["input_ids"].shape[1]
    gap = longest - image["input_ids"].shape[1]
    assert gap > 0
    for name, pad in (("input_ids", tokenizer.pad_token_id), ("attention_mask", 0)):
        row = torch.nn.functional.pad(image[name], (gap, 0), value=pad)
        batch[name] = torch.cat([batch[name], row])
    together = model(**batch, pixel_values=image["pixel_values"], image_sizes=image["image_sizes"]).logits
    for row, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(row[longest - len(expected) :], expected, atol=2e-5, rtol=0)


@torch.no_grad()
def test_strides_and_projectors_make_a_difference(dense_and_tokenizer, make_tam, frames):
    _, tokenizer = dense_and_tokenizer
    model = make_tam(diverge=True)
    last = []
    for stride in (1, 2, 3, 4):
        turn = VideoTurn(question="Same?", frames=frames(2), pool_stride=stride)
        last.append(model(**build_inputs([turn], tokenizer, model.config)).logits[0, -1])
    gaps = [(a - b).abs().max().item() for i, a in enumerate(last) for b in last[:i]]
    assert min(gaps) > 1e-3


def test_beams_repeat_each_rows_own_videos(dense_and_tokenizer, make_tam, frames):
    _, tokenizer = dense_and_tokenizer
    model = make_tam(diverge=True)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 3, "do_sample": False}
    turns = [
        VideoTurn(question="One?", frames=frames(3, 1), pool_stride=2),
        VideoTurn(question="Words only."),
        VideoTurn(question="Two?", frames=frames(5, 2), pool_stride=3),
    ]
    together = model.generate(**build_inputs(turns, tokenizer, model.config), **settings)[:, -6:]
    for turn, row in zip(turns, together, strict=True):
        alone = model.generate(**build_inputs([turn], tokenizer, model.config), **settings)[0, -6:]
        assert torch.equal(row, alone)


@torch.no_grad()
def test_long_videos_pass_the_tower_in_chunks_without_a_trace(dense_and_tokenizer, make_tam, frames, monkeypatch):
    _, tokenizer = dense_and_tokenizer
    model = make_tam(diverge=True)
    inputs = build_inputs([VideoTurn(question="Long?", frames=frames(10), pool_stride=3)], tokenizer, model.config)
    whole = model(**inputs).logits
    monkeypatch.setattr("tam_plugin.patches.onevision.modeling.FRAMES_PER_CHUNK", 3)
    torch.testing.assert_close(model(**inputs).logits, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"video_pool_strides": torch.tensor([1])}, "placeholders, the videos have 51 tokens"),
        ({"video_pool_strides": torch.tensor([1, 2])}, "2 video_pool_strides for 1 videos"),
        ({"video_pool_strides": torch.tensor([9])}, "pool stride 9"),
        ({"video_num_frames": torch.tensor([3])}, "video_num_frames = [3]"),
        ({"video_num_frames": torch.tensor([2, 0])}, "video_num_frames = [2, 0]"),
        ({"input_ids": None}, "need input_ids"),
    ],
)
def test_counts_that_do_not_fit_are_refused(dense_and_tokenizer, make_tam, frames, change, words):
    _, tokenizer = dense_and_tokenizer
    model = make_tam()
    inputs = build_inputs([VideoTurn(question="What?", frames=frames(2))], tokenizer, model.config)
    with pytest.raises(InputError) as caught:
        model(**{**inputs, **change})
    assert words in str(caught.value)
