"""Batches of any mixture give the tokens that each sample gives alone; counts are the budget's."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch

from tam_plugin import TaskType
from tam_plugin.budget import TokenLayout, register_reducer
from tam_plugin.budget.reducers import unregister_reducer
from tam_plugin.errors import InputError
from tam_plugin.patches.llava_next import VideoModality, video
from tam_plugin.patches.llava_next.model.model_config import token_layout_of
from tests.llava.budget_model import GRID, batch, embeddings, pixels, row, tam_model

pytestmark = pytest.mark.usefixtures("llava")


def samples():
    """Two strides, one stride again, an image, a row of text, an image of four crops and its whole."""
    return [
        (row(9, seed=1), pixels(3, 1), video(3)),
        (row(7, seed=2), pixels(2, 2), video(1)),
        (row(8, image=False, seed=3), torch.zeros(1, 3, 98, 98), "text"),
        (row(12, seed=4), pixels(1, 4), "image"),
        (row(6, seed=5), pixels(4, 5), video(TokenLayout(grid=GRID).budget(4, 3))),
        (row(10, seed=6), pixels(5, 6), "image"),
        (row(5, seed=7), pixels(2, 7), "video"),
    ]


@pytest.mark.parametrize("order", ["after_projector", "before_projector"])
@torch.no_grad()
def test_a_mixed_batch_gives_what_each_sample_gives_alone(order):
    model = tam_model(projector={"pool_order": order})
    rows, images, modalities = (list(column) for column in zip(*samples(), strict=True))
    together = embeddings(model, batch(rows), images, modalities)
    for index, (ids, image, modality) in enumerate(samples()):
        (alone,) = embeddings(model, batch([ids]), [image], [modality])
        assert together[index].shape == alone.shape
        torch.testing.assert_close(together[index], alone, atol=1e-5, rtol=1e-5, msg=f"sample {index}")
    assert len({len(t) for t in together}) > 4


@torch.no_grad()
def test_a_row_of_text_is_the_embedding_of_its_ids():
    model = tam_model()
    rows = [row(8, image=False, seed=3), row(9, seed=1)]
    seen = embeddings(model, batch(rows), [torch.zeros(1, 3, 98, 98), pixels(2)], ["text", video(2)])
    assert torch.equal(seen[0], model.get_model().embed_tokens(rows[0]))


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("newline", ["grid", "frame", "one_token", "no_token"])
@torch.no_grad()
def test_tokens_are_those_of_the_budget(newline, stride):
    model = tam_model(newline)
    budget = TokenLayout(grid=GRID, newline_position=newline).budget(3, stride)
    (seen,) = embeddings(model, batch([row(9)]), [pixels(3)], [budget])
    assert len(seen) == 9 - 1 + budget.visual_tokens


@pytest.mark.parametrize(("merge_type", "newline"), [("flat", "grid"), ("spatial", "one_token"), ("spatial", "frame")])
@torch.no_grad()
def test_newline_position_is_where_the_host_really_puts_them(merge_type, newline):
    from tam_plugin.patches.llava_next.model.model_config import newline_position

    model = tam_model(newline)
    model.config.mm_patch_merge_type = merge_type
    (seen,) = embeddings(model, batch([row(9)]), [pixels(3)], [video(2)])
    counted = TokenLayout(grid=GRID, newline_position=newline_position(model.config)).budget(3, 2)
    assert len(seen) == 9 - 1 + counted.visual_tokens


@pytest.mark.parametrize("stride", [1, 2, 4])
@torch.no_grad()
def test_one_stride_is_the_hosts_own_pooling_of_that_strides_projector(stride):
    """The host's code, unpatched, on a model whose only projector is the stride's."""
    from llava.model.llava_arch import LlavaMetaForCausalLM

    model = tam_model()
    (ours,) = embeddings(model, batch([row(9)]), [pixels(3)], [video(stride)])
    encode = inspect.unwrap(LlavaMetaForCausalLM.encode_images)
    pool = inspect.unwrap(LlavaMetaForCausalLM.get_2dPool)
    projectors = model.get_model().mm_projector
    model.get_model().mm_projector = getattr(projectors, f"stride_{stride}")
    theirs = model.add_token_per_grid(pool(model, encode(model, pixels(3)), stride))
    torch.testing.assert_close(ours[2 : 2 + len(theirs)], theirs, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_plain_video_takes_the_hosts_stride():
    model = tam_model()
    plain = embeddings(model, batch([row(9)]), [pixels(3)], ["video"])[0]
    assert torch.equal(plain, embeddings(model, batch([row(9)]), [pixels(3)], [video(2)])[0])
    assert torch.equal(plain, embeddings(model, batch([row(9)]), pixels(3)[None], "video")[0])


@torch.no_grad()
def test_budgets_in_generate():
    model = tam_model()
    prompt = row(9)[None]
    settings = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    budget = TokenLayout(grid=GRID).budget(3, 4)
    coarse = model.generate(prompt, images=[pixels(3)], modalities=[budget], **settings)
    embeds = embeddings(model, batch([row(9)]), [pixels(3)], [video(4)])[0][None]
    expected = []
    for _ in range(4):
        token = model(inputs_embeds=embeds).logits[0, -1].argmax()
        expected.append(int(token))
        embeds = torch.cat([embeds, model.get_model().embed_tokens(token)[None, None]], dim=1)
    assert coarse[0].tolist() == expected


def test_a_stride_without_projector_is_named():
    with pytest.raises(InputError, match=r"pool stride 5.*1, 2, 3, 4"):
        embeddings(tam_model(), batch([row(9)]), [pixels(3)], [video(5)])
    with pytest.raises(InputError, match="expected a VisualBudget or a pooling stride"):
        video("video")  # type: ignore[arg-type]


def test_nothing_is_left_of_a_call_that_failed():
    from tam_plugin.patches.llava_next.model.multimodal import current_entries

    with pytest.raises(InputError):
        embeddings(tam_model(), batch([row(9)]), [pixels(3)], [video(5)])
    assert current_entries() is None


@torch.no_grad()
def test_a_model_that_is_not_tam_is_the_hosts():
    """With the records applied, pooling and splitting of a plain model are what the host's functions give."""
    from llava.model.llava_arch import LlavaMetaForCausalLM

    model = tam_model()
    model.get_model().mm_projector = model.get_model().mm_projector.stride_2
    del model.config.tam
    prepare = inspect.unwrap(LlavaMetaForCausalLM.prepare_inputs_labels_for_multimodal)
    inputs = batch([row(9)])
    theirs = prepare(
        model, inputs["input_ids"], None, inputs["attention_mask"], None, inputs["labels"], [pixels(3)], ["video"]
    )
    assert torch.equal(theirs[4][0], embeddings(model, inputs, [pixels(3)], ["video"])[0])


def test_modality_survives_the_way_to_the_model():
    budget = TokenLayout().budget(12, 3, task=TaskType.SUMMARY, confidence=0.75)
    for copied in (pickle.loads(pickle.dumps(video(budget))), copy.deepcopy(video(budget))):
        assert type(copied) is VideoModality and copied == "video" and {copied: 1}["video"] == 1
        assert (copied.pool_stride, copied.num_frames, copied.task, copied.confidence) == (
            3,
            12,
            TaskType.SUMMARY,
            0.75,
        )


def test_modality_through_workers_pinned_memory_and_accelerate():
    from accelerate.utils import send_to_device
    from torch.utils.data import DataLoader
    from torch.utils.data._utils.pin_memory import pin_memory

    budgets = [TokenLayout().budget(n, s) for n, s in ((4, 1), (8, 2), (16, 3), (32, 4))]

    def collate(items):
        return {"modalities": [video(b) for b in items], "images": [torch.zeros(b.num_frames) for b in items]}

    loader = DataLoader(budgets, batch_size=2, num_workers=2, collate_fn=collate)
    arrived = []
    for loaded in loader:
        pinned = pin_memory({"modalities": loaded["modalities"]})  # text passes without a device
        arrived += send_to_device({**loaded, **pinned}, "cpu")["modalities"]
    assert [(m.num_frames, m.pool_stride) for m in arrived] == [(b.num_frames, b.pool_stride) for b in budgets]


class Halves:
    """Of two neighbouring frames, their mean; of a frame's rows and columns, those that make a square half as wide."""

    def shape(self, num_frames, tokens_per_frame):
        return -(-num_frames // 2), tokens_per_frame // 4

    def __call__(self, tokens):
        side = int(tokens.shape[1] ** 0.5)
        frames = torch.stack([pair.mean(0) for pair in tokens.split(2)])
        return frames.unflatten(1, (side, side))[:, : side // 2 * 2 : 2, : side // 2 * 2 : 2].flatten(1, 2)


@pytest.mark.parametrize("newline", ["grid", "frame", "one_token", "no_token"])
@torch.no_grad()
def test_a_token_reducer_leaves_what_the_layout_counts(newline):
    """Also where it leaves fewer frames than the host gave to be encoded; a still image keeps its tokens."""
    register_reducer("halves", Halves())
    try:
        model = tam_model(newline, projector={"reducer": "halves"})
        budget = token_layout_of(model, context_tokens=None).budget(5, 2)
        rows, images = [row(9), row(6, seed=4)], [pixels(5), pixels(1, 4)]
        seen, image = embeddings(model, batch(rows), images, [budget, "image"])
        plain = tam_model(newline)
        (whole,) = embeddings(plain, batch(rows[:1]), images[:1], [budget])
        (same,) = embeddings(plain, batch(rows[1:]), images[1:], ["image"])
    finally:
        unregister_reducer("halves")
    assert len(seen) == 9 - 1 + budget.visual_tokens < len(whole)
    torch.testing.assert_close(image, same, atol=1e-5, rtol=1e-5)
    if newline == "no_token":
        pooled = whole[2 : 2 + 5 * 16].unflatten(0, (5, 16))
        torch.testing.assert_close(seen[2:-6], Halves()(pooled).flatten(0, 1), atol=1e-5, rtol=1e-5)
