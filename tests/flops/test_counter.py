"""Equal to torch's counter within 0.1 %, part by part, on whole tiny models and on models of published sizes."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from tam_plugin.budget import TokenLayout
from tam_plugin.eval.flops import from_preset
from tam_plugin.flops import EncoderShape, ModelShape, count_flops, count_parameters, grouped_bias_operations
from tam_plugin.flops.operations import frame_flops
from tam_plugin.vision.grouped_gemm import unsupported_reason

from .conftest import GRID, IMAGE_SIZE, LANGUAGE, PROJECTOR, close, counted, counted_parts, parts_of, shape_of

MODELS = {
    "two of four": {},
    "one of four": {"moe": {"top_k": 1}},
    "four of four": {"moe": {"top_k": 4}},
    "two of eight, pooled first": {"moe": {"num_experts": 8}, "projector": {"pool_order": "before_projector"}},
    "one of one": {"moe": {"num_experts": 1, "top_k": 1}},
    "dense tower": {"moe": {"enabled": False}},
    "dense tower, one projector": {"moe": {"enabled": False}, "projector": {"gate": "single"}},
    "soft projector": {"projector": {"gate": "soft", "num_experts": 8, "top_k": 2}},
    "soft projector, pooled first": {"projector": {"gate": "soft", "pool_order": "before_projector"}},
    "average pooling": {"projector": {"pool_mode": "average"}},
    "random experts": {"moe": {"router_mode": "random_k"}},
}


@pytest.mark.parametrize("sections", MODELS.values(), ids=MODELS)
def test_whole_tam_models(make, ask, sections):
    model, shape = make(**copy.deepcopy(sections))
    for num_frames, stride in ((1, 1), (3, 2), (4, 3), (5, 4)):
        inputs, budget, text = ask(model, num_frames, stride)
        ours = parts_of(count_flops(shape, budget, text_tokens=text), shape, num_frames)
        assert ours == close(counted_parts(lambda i=inputs: model(**i, logits_to_keep=1))), stride
    ours = parts_of(count_flops(shape, budget, text_tokens=text, logits="all"), shape, num_frames)
    assert ours == close(counted_parts(lambda: model(**inputs)))


def changed(shape: ModelShape, part: str, **fields) -> ModelShape:
    return dataclasses.replace(shape, **{part: dataclasses.replace(getattr(shape, part), **fields)})


FORGOTTEN = {
    "a layer of the tower": lambda s: changed(s, "encoder", num_layers=s.encoder.num_layers - 1),
    "an expert": lambda s: changed(s, "encoder", top_k=s.encoder.top_k - 1),
    "the gates": lambda s: changed(s, "encoder", routed=False),
    "the patch embedding": lambda s: changed(s, "encoder", num_channels=0),
    "a layer of the projector": lambda s: changed(s, "projector", layers=s.projector.layers[:1]),
    "a layer of the language model": lambda s: changed(s, "language", num_layers=s.language.num_layers - 1),
    "the output layer": lambda s: changed(s, "language", vocab_size=0),
    "keys and values": lambda s: changed(s, "language", num_kv_heads=0),
    "the MLPs of the language model": lambda s: changed(s, "language", intermediate_size=0),
}


@pytest.mark.parametrize("forget", FORGOTTEN.values(), ids=FORGOTTEN)
def test_a_formula_that_forgets_a_term_is_caught(make, ask, forget):
    model, shape = make()
    inputs, budget, text = ask(model, 5, 4)
    theirs = counted_parts(lambda: model(**inputs, logits_to_keep=1))
    assert parts_of(count_flops(shape, budget, text_tokens=text), shape, 5) == close(theirs)
    assert parts_of(count_flops(forget(shape), budget, text_tokens=text), forget(shape), 5) != close(theirs)


@pytest.mark.parametrize("new_tokens", [1, 2, 9])
def test_answers_of_several_tokens(make, ask, new_tokens):
    model, shape = make()
    inputs, budget, text = ask(model, 3, 2)
    lengths = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    ours = count_flops(shape, budget, text_tokens=text, new_tokens=new_tokens)
    assert ours.total == close(counted(lambda: model.generate(**inputs, **lengths, do_sample=False)))


def test_the_unpatched_dense_host(dense_and_tokenizer, make, ask):
    dense = copy.deepcopy(dense_and_tokenizer[0])
    dense.set_attn_implementation("eager")
    tam, tam_shape = make()
    inputs, budget, text = ask(tam, 5, 2)
    pixels = inputs.pop("pixel_values_videos")[None]
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    theirs = counted(lambda: dense(**ids, pixel_values_videos=pixels, logits_to_keep=1))
    shape = shape_of(dense.config, None)
    assert shape == tam_shape.dense()
    assert count_flops(shape, budget, text_tokens=text).total == close(theirs)


@pytest.mark.parametrize("sections", MODELS.values(), ids=MODELS)
def test_parameters_are_those_of_the_model(make, sections):
    model, shape = make(**copy.deepcopy(sections))
    counts, inner = count_parameters(shape), model.model
    assert counts["all"]["total"] == sum(p.numel() for p in model.parameters())
    assert counts["tower"]["total"] == sum(p.numel() for p in inner.vision_tower.parameters())
    assert counts["projectors"]["total"] == sum(p.numel() for p in inner.multi_modal_projector.parameters())
    embeddings = model.get_input_embeddings().weight.numel() + model.lm_head.weight.numel()
    assert counts["all"]["total"] - counts["without_embeddings"]["total"] == embeddings


def test_grouped_experts_add_their_biases_as_products(make, ask):
    if (reason := unsupported_reason("cpu", torch.float32, (32, 64))) is not None:
        pytest.skip(reason)
    model, shape = make(moe={"backend": "grouped", "num_experts": 8})
    inputs, budget, text = ask(model, 3, 2)

    def product(rows, weight, offsets, *, out_shape=None, **_):
        return 2 * rows[0] * rows[1] * weight[-1]

    theirs = counted(lambda: model(**inputs, logits_to_keep=1), {torch.ops.tam_plugin.grouped_mm: product})
    extra = budget.num_frames * grouped_bias_operations(shape.encoder)
    assert extra > 0 and count_flops(shape, budget, text_tokens=text).total + extra == close(theirs)


@pytest.mark.parametrize("head", [False, True])
def test_an_encoder_with_and_without_its_pooling_head(head):
    fields = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = SiglipVisionConfig(**fields, image_size=IMAGE_SIZE, patch_size=14, vision_use_head=head)
    config._attn_implementation = "eager"
    model = SiglipVisionModel(config)  # in training: torch hides the head's products behind a fast path otherwise
    pixels = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    shape = EncoderShape.of(config.to_dict(), None, num_layers=3, where="tiny", pooling_head=head)
    assert shape.grid == GRID and 2 * frame_flops(shape) == close(counted_with_graph(lambda: model(pixels)))
    counts = count_parameters(ModelShape(encoder=shape, projector=PROJECTOR, language=LANGUAGE))
    assert counts["tower"]["total"] == sum(p.numel() for p in model.parameters())


def counted_with_graph(run) -> int:
    """As :func:`counted`, and the model keeps its graph."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_published_sizes_without_their_weights():
    """LLaVA-Video-7B's tower and language model as transformers builds them, without storage."""
    subject = from_preset("llava-video-7b")
    vision = SiglipVisionConfig(**subject.layout.vision, vision_use_head=False)
    language = Qwen2Config(**subject.layout.language)
    vision._attn_implementation = language._attn_implementation = "eager"
    budget, text = TokenLayout().budget(8, 2), 100
    with torch.device("meta"):
        tower, decoder = SiglipVisionModel(vision).eval(), Qwen2ForCausalLM(language).eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        tower, decoder = tower.to_empty(device="cpu"), decoder.to_empty(device="cpu")
        pixels, ids = torch.zeros(8, 3, 384, 384), torch.zeros(1, budget.visual_tokens + text, dtype=torch.long)
        ours = count_flops(subject.model.dense(), budget, text_tokens=text)
        assert ours.encoder == close(counted(lambda: tower(pixels)))
        ready = {"full_attention": None}  # a mask made for the model: making one reads values, and there are none
        assert ours.prefill == close(counted(lambda: decoder(ids, ready, logits_to_keep=1, use_cache=False)))
    counts = count_parameters(subject.model.dense())
    assert counts["tower"]["total"] == sum(p.numel() for p in tower.parameters())
    assert counts["language_model"]["total"] == sum(p.numel() for p in decoder.parameters()) + language.hidden_size
