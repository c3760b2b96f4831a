"""A plain checkpoint follows a video's budget: the host itself at another stride is the measure."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import MethodType

import pytest
import torch

from tam_plugin.budget import TokenLayout
from tam_plugin.errors import InputError
from tam_plugin.patches.llava_next import video
from tests.llava import tiny
from tests.llava.budget_model import GRID, batch, embeddings, pixels, row, tam_model
from tests.llava.test_loading import load
from tests.llava.test_upgrade import PROMPT
from tests.llava.test_upgrade import video as frames_of

pytestmark = pytest.mark.usefixtures("llava")


def plain_model(newline: str = "grid", mode: str = "bilinear"):
    """A model with one projector, of which the plugin knows nothing."""
    model = tam_model(newline)
    model.get_model().mm_projector = model.get_model().mm_projector.stride_2
    model.config.mm_spatial_pool_mode = mode
    del model.config.tam
    return model


def unpatched(model, stride: int):
    """``model`` with the host's own methods, whose stride is ``stride``."""
    from llava.model.llava_arch import LlavaMetaForCausalLM as Host

    pool = inspect.unwrap(Host.get_2dPool)
    model.get_2dPool = lambda features: pool(model, features, stride)
    model.encode_images = MethodType(inspect.unwrap(Host.encode_images), model)
    model.prepare_inputs_labels_for_multimodal = MethodType(
        inspect.unwrap(Host.prepare_inputs_labels_for_multimodal), model
    )
    return model


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("newline", "mode"), [("grid", "bilinear"), ("one_token", "average"), ("frame", "max")])
@torch.no_grad()
def test_any_stride_is_the_host_at_that_stride(newline, mode, stride):
    inputs = batch([row(9), row(7, seed=2), row(8, seed=3), row(8, image=False, seed=4)])
    images = [pixels(3), pixels(1, 1), pixels(2, 2), torch.zeros(1, 3, 98, 98)]
    ours = embeddings(plain_model(newline, mode), inputs, images, [video(stride), "image", video(stride), "text"])
    host = unpatched(plain_model(newline, mode), stride)
    theirs = embeddings(host, inputs, images, ["video", "image", "video", "text"])
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@torch.no_grad()
def test_videos_of_one_batch_keep_their_own_strides():
    model = plain_model()
    budget = TokenLayout(grid=GRID).budget(4, 3)
    rows, images = [row(9), row(7, seed=2), row(8, seed=3)], [pixels(3), pixels(4, 1), pixels(2, 2)]
    together = embeddings(model, batch(rows), images, [video(1), budget, "video"])
    for one, ids, image, stride in zip(together, rows, images, (1, 3, 2), strict=True):
        host = unpatched(plain_model(), stride)
        torch.testing.assert_close(one, embeddings(host, batch([ids]), [image], ["video"])[0], atol=1e-5, rtol=1e-5)
    assert len(together[1]) == 7 - 1 + budget.visual_tokens


@torch.no_grad()
def test_a_checkpoint_of_the_hosts_loader(dense: Path, hub: Path):
    with tiny.hub_cache(hub):
        _, model, _, _ = load(dense)
    said = {}
    for stride in (2, 4):
        settings = {"images": [frames_of(2).to(model.dtype)], "image_sizes": [(384, 384)], "max_new_tokens": 4}
        settings["do_sample"] = False
        ours = model.generate(PROMPT, modalities=[video(stride)], **settings)
        said[stride] = model(PROMPT, modalities=[video(stride)], **{k: settings[k] for k in ("images", "image_sizes")})
        unpatched(model, stride)
        assert torch.equal(ours, model.generate(PROMPT, modalities=["video"], **settings))
        for name in ("get_2dPool", "encode_images", "prepare_inputs_labels_for_multimodal"):
            delattr(model, name)
    assert said[4].logits.shape[1] == PROMPT.shape[1] - 1 + TokenLayout().budget(2, 4).visual_tokens
    assert not torch.equal(said[2].logits[0, -1], said[4].logits[0, -1])


BAD = [
    ("no image token", [row(9, image=False)], [pixels(3)], [video(2)]),
    ("places for 2 images, images has 1", [torch.cat([row(9), row(9)])], [pixels(3)], [video(2)]),
    (r"pool stride 8: expected a whole number from 1 to the grid's side 7", [row(9)], [pixels(3)], [video(8)]),
    ("1 modalities for 2 images", [row(9), row(9)], [pixels(3), pixels(3)], [video(2)]),
    ("2 modalities for 1 images", [row(9)], [pixels(3)], [video(2), video(3)]),
    (r"images of shape \[3, 3, 98, 98\]", [row(9)], pixels(3), [video(2)]),
    (r"images\[0\] has 3 frames, its budget 2", [row(9)], [pixels(3)], [TokenLayout(grid=GRID).budget(2, 1)]),
]


@pytest.mark.parametrize("kind", [plain_model, tam_model])
@pytest.mark.parametrize(("message", "rows", "images", "modalities"), BAD, ids=[case[0] for case in BAD])
def test_a_budget_that_cannot_be_followed_is_refused(kind, message, rows, images, modalities):
    with pytest.raises(InputError, match=message):
        embeddings(kind(), batch(rows), images, modalities)
