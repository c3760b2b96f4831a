"""Floating-point operations of one question: every matrix product and convolution, a product as 2·m·k·n.

These are the conventions of ``torch.utils.flop_counter.FlopCounterMode``, whose figures they equal within 0.1 %: to the
last operation where transformers computes the rotary angles by a matrix product, as 5.17 does and 5.24 does not.
Biases, norms, activations, softmax, pooling (:func:`pooling_operations` says how much) and the look-up of embeddings
are left out.

P patches per frame, D and I the encoder's widths, L its layers, K of E experts taken, T frames, n tokens of the prompt,
H the language model's width, M its layers, q and k its query and key heads of width d, F its gated MLP's width:

- encoder, per frame: patches 2·P·D·C·p²; each layer 8·P·D² (attention's projections) + 4·P²·D (scores and sums)
  + K·4·P·D·I (experts; K = 1 if dense) + 2·P·D·E (router);
- projector: 2 · its weights per token, on P tokens per frame (``after_projector``) or on the pooled ones;
- prefill, each layer: 2·n·H·d·(q + 2k) + 2·n·q·d·H (projections) + 4·n²·q·d (scores and sums) + 6·n·H·F (MLP); once
  d·n (rotary angles) and 2·H·vocabulary (output layer, of the last token);
- decode: the same for one token, whose scores and sums run over all tokens before it and itself.

Grouped experts add their biases as a product with a one-hot matrix, K·2·E·(I + D) per patch and layer. That is an
implementation detail and is counted on request only (:func:`grouped_bias_operations`).
"""

from __future__ import annotations

from dataclasses import dataclass

from tam_plugin.budget import VisualBudget
from tam_plugin.errors import InputError
from tam_plugin.flops.language import LanguageShape
from tam_plugin.flops.shapes import EncoderShape, ModelShape, ProjectorShape

ATTENTIONS = ("full", "causal")
"""Scores of the whole n × n square, as torch's counter has it, or of the half that a causal mask leaves."""
LOGITS = ("last", "all")
"""Output layer of the last token of the prompt alone, as ``generate`` has it, or of all."""

MOST_TOKENS = 10**9

_BILINEAR = 7
"""Operations of one interpolated value: four products and three sums, its weights given."""


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Operations of one question by part.

    Attributes:
        encoder: vision encoder without its gates.
        gates: routers of the encoder, and of a ``soft`` projector.
        projector: projectors.
        prefill: language model over the whole prompt, to the first new token.
        decode: language model for the other new tokens.
        pooling: elementwise operations of pooling; not part of ``total``.
    """

    encoder: int
    gates: int
    projector: int
    prefill: int
    decode: int
    pooling: int

    @property
    def total(self) -> int:
        """All operations except those of pooling."""
        return self.encoder + self.gates + self.projector + self.prefill + self.decode


def count_flops(
    model: ModelShape,
    budget: VisualBudget,
    *,
    text_tokens: int = 0,
    new_tokens: int = 1,
    attention: str = "full",
    logits: str = "last",
) -> Flops:
    """Operations of one question about one video.

    Args:
        model: the model's sizes.
        budget: frames, tokens per frame, and all visual tokens with newlines.
        text_tokens: tokens of the prompt beside the visual ones.
        new_tokens: length of the answer; the prefill gives the first token, each other one is a decoding step.
        attention: see :data:`ATTENTIONS`.
        logits: see :data:`LOGITS`.

    Raises:
        InputError: a count below 0 or an unknown convention.
    """
    check_count("text_tokens", text_tokens, 0)
    check_count("new_tokens", new_tokens, 1)
    frames, prompt = budget.num_frames, budget.visual_tokens + text_tokens
    patches = model.encoder.patches
    projected = frames * (budget.tokens_per_frame if model.projector.pool_first else patches)
    return Flops(
        encoder=frames * frame_flops(model.encoder),
        gates=frames * encoder_gate_flops(model.encoder) + projected * projector_gate_flops(model.projector),
        projector=projected * 2 * model.projector.top_k * model.projector.weights,
        prefill=prefill_flops(model.language, prompt, attention=attention, logits=logits),
        decode=decode_flops(model.language, prompt, new_tokens - 1),
        pooling=pooling_operations(model, budget),
    )


def frame_flops(encoder: EncoderShape) -> int:
    """Operations of the encoder without its routers, per frame."""
    p, d, i = encoder.patches, encoder.hidden_size, encoder.intermediate_size
    layer = 8 * p * d**2 + 4 * p**2 * d + encoder.top_k * 4 * p * d * i
    patches = 2 * p * d * encoder.num_channels * encoder.patch_size**2
    # One query over all patches: its projections, keys and values, scores and sums, and an MLP.
    head = 4 * d**2 + 4 * p * d**2 + 4 * p * d + 4 * d * i if encoder.pooling_head else 0
    return patches + encoder.num_layers * layer + head


def encoder_gate_flops(encoder: EncoderShape) -> int:
    """Operations of the encoder's routers, per frame."""
    return encoder.num_layers * 2 * encoder.patches * encoder.hidden_size * encoder.num_experts * encoder.routed


def projector_gate_flops(projector: ProjectorShape) -> int:
    """Operations of the router of a ``soft`` projector, per token."""
    return 2 * projector.layers[0][0] * projector.num_experts * projector.routed


def grouped_bias_operations(encoder: EncoderShape) -> int:
    """What the grouped backend adds for the experts' biases, per frame (the reference backend adds nothing)."""
    widths = encoder.intermediate_size + encoder.hidden_size
    return encoder.num_layers * encoder.patches * encoder.top_k * 2 * encoder.num_experts * widths * encoder.routed


def prefill_flops(language: LanguageShape, num_tokens: int, *, attention: str = "full", logits: str = "last") -> int:
    """The language model over a prompt of ``num_tokens``, output layer included.

    Raises:
        InputError: an unknown convention.
    """
    for name, value, choices in (("attention", attention, ATTENTIONS), ("logits", logits, LOGITS)):
        if value not in choices:
            raise InputError(f"{name} = {value!r}: expected one of {', '.join(choices)}")
    n = num_tokens
    pairs = n * n if attention == "full" else n * (n + 1) // 2
    return (
        n * _token_flops(language)
        + pairs * _pair_flops(language)
        + (_logits_flops(language) * (min(n, 1) if logits == "last" else n))
    )


def decode_flops(language: LanguageShape, prompt_tokens: int, steps: int = 1) -> int:
    """``steps`` decoding steps with a cache, the first after ``prompt_tokens`` tokens; each sees itself too."""
    seen = steps * prompt_tokens + steps * (steps + 1) // 2
    return steps * (_token_flops(language) + _logits_flops(language)) + seen * _pair_flops(language)


def pooling_operations(model: ModelShape, budget: VisualBudget) -> int:
    """Elementwise operations of pooling: 7 per value if bilinear, s² per value for ``average``, none for ``max``."""
    if budget.pool_stride == 1:
        return 0
    side = {"bilinear": _BILINEAR, "average": budget.pool_stride**2, "max": 0}[model.pool_mode]
    width = model.projector.layers[0][0] if model.projector.pool_first else model.projector.layers[-1][1]
    return budget.num_frames * budget.tokens_per_frame * width * side


def _token_flops(language: LanguageShape) -> int:
    """All layers for one token, but for attention's scores and sums; and its rotary angles."""
    h, d = language.hidden_size, language.head_dim
    attention = 2 * h * d * (language.num_heads + 2 * language.num_kv_heads) + 2 * language.num_heads * d * h
    sparse = 2 * h * language.num_experts + language.top_k * 6 * h * language.expert_size
    if language.shared_size:
        sparse += 6 * h * language.shared_size + 2 * h
    dense_layers = language.num_layers - language.sparse_layers
    mlps = dense_layers * 6 * h * language.intermediate_size + language.sparse_layers * sparse
    return language.num_layers * attention + mlps + d


def _pair_flops(language: LanguageShape) -> int:
    """Score and sum of one query over one key, in all layers and heads."""
    return 4 * language.num_layers * language.num_heads * language.head_dim


def _logits_flops(language: LanguageShape) -> int:
    return 2 * language.hidden_size * language.vocab_size


def check_count(name: str, value: int, low: int) -> None:
    """Refuse a number of tokens that no prompt or answer has.

    Raises:
        InputError: it is no whole number from ``low`` to a billion.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MOST_TOKENS:
        raise InputError(f"{name} = {value!r}: expected a whole number from {low} to {MOST_TOKENS}")
