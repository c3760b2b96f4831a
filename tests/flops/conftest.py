"""Tiny models whose every matrix product torch's counter sees: eager attention, experts one after another.

The formulas are held to the counter within 0.1 %, part by part: a release of transformers may compute something small
in another way (5.24 has no matrix product for the rotary angles any more), a term of the model is larger than that.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tam_plugin import TamConfig
from tam_plugin.budget import TokenLayout
from tam_plugin.flops import EncoderShape, Flops, LanguageShape, ModelShape, ProjectorShape
from tam_plugin.flops.operations import encoder_gate_flops
from tam_plugin.patches.onevision import VideoTurn, build_inputs, upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model

IMAGE_SIZE, GRID = 70, 5

ENCODER = EncoderShape(hidden_size=8, intermediate_size=8, num_layers=1, grid=2, patch_size=2)
PROJECTOR = ProjectorShape(layers=((8, 8),))
LANGUAGE = LanguageShape(
    hidden_size=8, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, vocab_size=8, intermediate_size=8
)
"""Stand-ins for the parts that a test is not about."""


close = functools.partial(pytest.approx, rel=1e-3)
"""Equal within 0.1 %."""


def parts_of(flops: Flops, shape: ModelShape, num_frames: int) -> dict[str, int]:
    """A formula's figures by module of a OneVision model."""
    gates = num_frames * encoder_gate_flops(shape.encoder)
    return {
        "vision_tower": flops.encoder + gates,
        "multi_modal_projector": flops.projector + flops.gates - gates,
        "language_model and lm_head": flops.prefill + flops.decode,
    }


def counted_parts(run: Callable[[], Any]) -> dict[str, int]:
    """Operations that torch's own counter sees, by module of a OneVision model."""
    with torch.no_grad(), FlopCounterMode(display=False, depth=3) as counter:
        run()
    found = {name.rpartition(".")[2]: sum(by_kind.values()) for name, by_kind in counter.get_flop_counts().items()}
    parts = {name: found[name] for name in ("vision_tower", "multi_modal_projector")}
    parts["language_model and lm_head"] = found["language_model"] + found["lm_head"]
    assert sum(parts.values()) == counter.get_total_flops()
    return parts


def counted(run: Callable[[], Any], custom: dict | None = None) -> int:
    """Operations that torch's own counter sees."""
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=custom) as counter:
        run()
    return counter.get_total_flops()


def shape_of(config, tam: TamConfig | None) -> ModelShape:
    """Sizes of a OneVision model, from its configuration."""
    vision, language = config.vision_config, config.text_config
    wide, hidden = vision.hidden_size, language.hidden_size
    return ModelShape(
        encoder=EncoderShape.of(vision.to_dict(), tam, num_layers=vision.num_hidden_layers, where="tiny"),
        projector=ProjectorShape.of(((wide, hidden), (hidden, hidden)), tam.projector if tam else None),
        language=LanguageShape.of(language.to_dict(), "tiny"),
        pool_mode=tam.projector.pool_mode if tam else "bilinear",
    )


@pytest.fixture(scope="session")
def dense_and_tokenizer():
    """The host's own model and its tokenizer."""
    return demo_dense_model(seed=1, image_size=IMAGE_SIZE, patch_size=14)


@pytest.fixture
def make(dense_and_tokenizer):
    """``make(**sections of TamConfig)``: a TAM model and its sizes."""

    def make_one(**sections):
        moe = {"backend": "reference", **sections.pop("moe", {})}
        tam = TamConfig.from_dict({"moe": moe, **sections})
        model = upgrade_dense(copy.deepcopy(dense_and_tokenizer[0]), tam)
        model.set_attn_implementation("eager")
        return model, shape_of(model.config, tam)

    return make_one


@pytest.fixture
def ask(dense_and_tokenizer):
    """``ask(model, frames, stride)``: inputs of one question, its budget, and its tokens beside the visual ones."""

    def build(model, num_frames, stride):
        pixels = torch.randn(num_frames, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
        turn = VideoTurn(question="What is it?", frames=pixels, pool_stride=stride)
        inputs = build_inputs([turn], dense_and_tokenizer[1], model.config)
        mode = model.config.tam_config.projector.pool_mode
        budget = TokenLayout(grid=GRID, pool_mode=mode, newline_position="one_token").budget(num_frames, stride)
        return inputs, budget, inputs["input_ids"].shape[1] - budget.visual_tokens

    return build
