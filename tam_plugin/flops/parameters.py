"""Parameters of a model by part: those it holds, and those that one token or frame uses."""

from __future__ import annotations

from tam_plugin.flops.language import LanguageShape
from tam_plugin.flops.shapes import EncoderShape, ModelShape, ProjectorShape

Counts = dict[str, int]


def count_parameters(model: ModelShape) -> dict[str, Counts]:
    """``{"total", "activated"}`` of the whole, of each part, and of the whole without embedding and output layer.

    The last, ``without_embeddings``, is the count after which mixtures are commonly named ("8B-A7B"): embeddings
    cost memory and next to no operations.
    """
    tower, projectors = _encoder(model.encoder), _projector(model.projector)
    layers, embeddings = _layers(model.language), _embeddings(model.language)
    if model.newline:
        layers = {kind: n + model.language.hidden_size for kind, n in layers.items()}
    language = {kind: n + embeddings for kind, n in layers.items()}
    parts = {"tower": tower, "projectors": projectors, "language_model": language}
    kinds = ("total", "activated")
    whole = {kind: sum(part[kind] for part in parts.values()) for kind in kinds}
    return {"all": whole, **parts, "without_embeddings": {kind: whole[kind] - embeddings for kind in kinds}}


def _encoder(encoder: EncoderShape) -> Counts:
    d, i = encoder.hidden_size, encoder.intermediate_size
    expert = 2 * d * i + i + d
    patches = encoder.num_channels * encoder.patch_size**2 * d + d + encoder.patches * d
    layer = 4 * (d * d + d) + 4 * d + d * encoder.num_experts * encoder.routed
    # A learned query, its attention, a norm and an MLP.
    head = d + 4 * (d * d + d) + 2 * d + expert if encoder.pooling_head else 0
    rest = patches + 2 * d + head + encoder.num_layers * layer
    return {
        "total": rest + encoder.num_layers * encoder.num_experts * expert,
        "activated": rest + encoder.num_layers * encoder.top_k * expert,
    }


def _projector(projector: ProjectorShape) -> Counts:
    one = projector.weights + projector.bias * sum(out for _, out in projector.layers)
    gate = projector.layers[0][0] * projector.num_experts * projector.routed
    return {
        "total": projector.copies * projector.num_experts * one + gate,
        "activated": projector.top_k * one + gate,
    }


def _layers(language: LanguageShape) -> Counts:
    """Decoder layers and the last norm."""
    h, d = language.hidden_size, language.head_dim
    queries, keys = language.num_heads * d, language.num_kv_heads * d
    attention = h * (queries + 2 * keys) + queries * h + 2 * h
    attention += (queries + 2 * keys) * language.qkv_bias + h * language.out_bias + 2 * d * language.qk_norm
    always = h * language.num_experts + (3 * h * language.shared_size + h if language.shared_size else 0)
    expert = 3 * h * language.expert_size
    dense = (language.num_layers - language.sparse_layers) * 3 * h * language.intermediate_size
    rest = language.num_layers * attention + dense + language.sparse_layers * always + h
    return {
        "total": rest + language.sparse_layers * language.num_experts * expert,
        "activated": rest + language.sparse_layers * language.top_k * expert,
    }


def _embeddings(language: LanguageShape) -> int:
    return language.vocab_size * language.hidden_size * (1 if language.tied else 2)
