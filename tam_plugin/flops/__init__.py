"""Exact floating-point operations and parameters of a TAM (or dense) LLaVA model, from its sizes alone."""

from tam_plugin.flops.language import LanguageShape
from tam_plugin.flops.operations import (
    ATTENTIONS,
    Flops,
    count_flops,
    decode_flops,
    grouped_bias_operations,
    pooling_operations,
    prefill_flops,
)
from tam_plugin.flops.parameters import count_parameters
from tam_plugin.flops.shapes import EncoderShape, ModelShape, ProjectorShape

__all__ = [
    "ATTENTIONS",
    "EncoderShape",
    "Flops",
    "LanguageShape",
    "ModelShape",
    "ProjectorShape",
    "count_flops",
    "count_parameters",
    "decode_flops",
    "grouped_bias_operations",
    "pooling_operations",
    "prefill_flops",
]
