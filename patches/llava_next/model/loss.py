"""The training loss of a TAM model: L_ori + α_b·L_b + α_z·L_z (Eq. 4), and what of it is logged."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tam_plugin.patches.llava_next.data.modality import host_modalities
from tam_plugin.patches.llava_next.model.logging_meter import LossMeter
from tam_plugin.patches.llava_next.model.model_config import is_tam, tam_config_of
from tam_plugin.vision import collect_routing, moe_layers
from tam_plugin.vision.collect import RoutingCollector


def with_router_losses(original: Callable) -> Callable:
    """The host's ``forward``, with the router losses in its loss while a TAM model trains.

    Its signature stays the host's: the Trainer reads it to decide how losses of accumulated batches are scaled.
    torch.compile leaves all of this out and begins in the host's ``forward``.
    """
    signature = inspect.signature(original)

    def in_training(self, *args, **kwargs):
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        given = call.arguments
        parts = vision_parts(self)
        if given.get("labels") is None or given.get("dpo_forward") or next(moe_layers(parts), None) is None:
            return original(self, *args, **kwargs)
        with collect_routing(parts) as routing:
            output = original(self, *args, **kwargs)
        sees = given.get("images") is not None and not _is_text_only(given.get("modalities"))
        return _add(self, output, routing, sees=sees)

    in_training = torch.compiler.disable(in_training, recursive=False)

    @functools.wraps(original)
    def forward(self, *args, **kwargs):
        return (in_training if self.training and is_tam(self) else original)(self, *args, **kwargs)

    return forward


@torch.compiler.disable
def vision_parts(model: Any) -> nn.ModuleList:
    """What may hold mixture layers: the tower (which hides in a list under FSDP) and the projectors."""
    inner = model.get_model()
    return nn.ModuleList([m for m in (inner.get_vision_tower(), inner.mm_projector) if m is not None])


def _is_text_only(modalities: Any) -> bool:
    """Whether every picture is the black one that the host gives a row of text: it must not train the router."""
    return modalities is not None and all(m == "text" for m in host_modalities(modalities))


@torch.compiler.disable
def _add(model: Any, output: Any, routing: RoutingCollector, *, sees: bool) -> Any:
    loss = output[0]
    sees = sees and any(routing.records)
    _meter(model).add(loss, routing if sees else None)
    if not any(routing.records):
        return output
    # The black picture of a row of text trains no router, yet its losses stay in the graph: gradients must arrive in
    # the order of the other ranks.
    total = loss + (1.0 if sees else 0.0) * routing.aux_loss(tam_config_of(model).moe).to(loss)
    if isinstance(output, tuple):
        return (total, *output[1:])
    output.loss = total
    return output


def _meter(model: Any) -> LossMeter:
    meter = model.__dict__.get("tam_meter")
    if meter is None:
        meter = model.__dict__["tam_meter"] = LossMeter(list(moe_layers(vision_parts(model))))
    return meter


def meter_of(model: nn.Module) -> LossMeter | None:
    """The meter of a TAM model in training, also under the wrappers of PEFT and of data parallelism."""
    return next((m.__dict__["tam_meter"] for m in model.modules() if "tam_meter" in m.__dict__), None)
