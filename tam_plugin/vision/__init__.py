"""Frames → visual tokens: mixture encoder, pooling and projectors by resolution (Sec. 3.2 and 3.3)."""

from __future__ import annotations

from tam_plugin.vision.by_task import route_by_task
from tam_plugin.vision.collect import RoutingCollector, collect_routing, use_non_reentrant_checkpointing
from tam_plugin.vision.gradients import with_zero_gradients
from tam_plugin.vision.grouped_gemm import expert_backends
from tam_plugin.vision.moe_mlp import LayerRecord, MoeMlp, moe_layers
from tam_plugin.vision.pooling import pool_tokens
from tam_plugin.vision.projector import ResolutionProjectors
from tam_plugin.vision.stats import RoutingStatistics
from tam_plugin.vision.tokens import frames_to_tokens, with_newlines
from tam_plugin.vision.upcycle import encoder_layers, upcycle_vision_encoder

__all__ = [
    "LayerRecord",
    "MoeMlp",
    "ResolutionProjectors",
    "RoutingCollector",
    "RoutingStatistics",
    "collect_routing",
    "encoder_layers",
    "expert_backends",
    "frames_to_tokens",
    "moe_layers",
    "pool_tokens",
    "route_by_task",
    "upcycle_vision_encoder",
    "use_non_reentrant_checkpointing",
    "with_newlines",
    "with_zero_gradients",
]
