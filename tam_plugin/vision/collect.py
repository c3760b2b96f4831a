"""Collecting auxiliary losses and routing from a forward, once, with their gradients (Eq. 4).

A loss that leaves a layer by a side channel has no gradient if reentrant gradient checkpointing runs that
layer (its forward runs without a graph), and is produced again when any checkpointing recomputes the layer.
So a collector listens only while its context is open and outside of a backward, sees to it that the encoder
is checkpointed without reentrance, and refuses a loss that should have a gradient and has none.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError
from tam_plugin.vision.moe_mlp import LayerRecord, MoeMlp, moe_layers

logger = logging.getLogger(__name__)


class RoutingCollector:
    """What the mixture layers reported while a :func:`collect_routing` context was open.

    Attributes:
        records: per layer, one :class:`LayerRecord` per forward.
    """

    def __init__(self, layers: list[MoeMlp]) -> None:
        self.records: list[list[LayerRecord]] = [[] for _ in layers]
        # Grad mode is read when the context opens: validation under no_grad needs no gradient.
        self._needs_grad = torch.is_grad_enabled() and any(
            layer.training and layer.gate.weight.requires_grad for layer in layers
        )

    @property
    def balance_loss(self) -> torch.Tensor:
        """Mean balance loss over layers and forwards; a zero if nothing ran (a text-only batch)."""
        return self._mean("balance_loss")

    @property
    def z_loss(self) -> torch.Tensor:
        """Mean router z-loss over layers and forwards; a zero if nothing ran."""
        return self._mean("z_loss")

    def aux_loss(self, config: MoeConfig) -> torch.Tensor:
        """α_b · L_b + α_z · L_z of Eq. 4: add it to the model's loss. A float32 scalar with its gradient.

        Layers are averaged, so the weights mean the same for encoders of any depth.
        """
        return config.balance_loss_weight * self.balance_loss + config.z_loss_weight * self.z_loss

    def check_gradients(self) -> None:
        """Refuse losses that lost their gradient; runs when a loss is read and when the context closes.

        Raises:
            ConfigError: a layer in training reported a loss without a gradient.
        """
        if self._needs_grad and any(not record.z_loss.requires_grad for layer in self.records for record in layer):
            raise ConfigError(
                "the router losses have no gradient: a layer ran without a graph (reentrant gradient checkpointing, "
                "or no_grad inside the forward); checkpoint the encoder with use_reentrant=False"
            )

    def _mean(self, name: str) -> torch.Tensor:
        self.check_gradients()
        values = [getattr(record, name) for layer in self.records for record in layer]
        return torch.stack(values).mean() if values else torch.zeros(())


@contextmanager
def collect_routing(module: nn.Module) -> Iterator[RoutingCollector]:
    """Listen to the mixture layers of ``module`` (an encoder, a projector, a whole model).

    Example::

        with collect_routing(encoder) as routing:
            features = encoder(pixel_values).last_hidden_state
        loss = loss + routing.aux_loss(config.moe)

    The encoder may run more than once inside. Contexts do not nest on the same layers.

    Raises:
        ConfigError: a collector already listens to one of the layers; or, on leaving, a loss lacks its gradient
            because something ran the layers without a graph.
    """
    layers = list(moe_layers(module))
    if any(layer._records is not None for layer in layers):
        raise ConfigError("collect_routing: a collector already listens to these layers; close it first")
    use_non_reentrant_checkpointing(module)
    collector = RoutingCollector(layers)
    try:
        for layer, records in zip(layers, collector.records, strict=True):
            layer._records = records
        yield collector
        collector.check_gradients()
    finally:
        for layer in layers:
            layer._records = None


@torch.compiler.disable
def use_non_reentrant_checkpointing(module: nn.Module) -> int:
    """Make transformers' gradient checkpointing of mixture layers inside ``module`` non-reentrant.

    Modules without mixture layers (a language model beside the encoder) are not changed. :func:`collect_routing` calls
    this, since a trainer turns checkpointing on after the encoder was built.

    Returns:
        How many modules were changed.
    """
    changed = 0
    for child in module.modules():
        function: Any = getattr(child, "_gradient_checkpointing_func", None)
        reentrant = isinstance(function, functools.partial) and function.keywords.get("use_reentrant", True)
        if reentrant and next(moe_layers(child), None) is not None:
            non_reentrant: Any = functools.partial(function, use_reentrant=False)
            child._gradient_checkpointing_func = non_reentrant
            changed += 1
    if changed:
        logger.info("gradient checkpointing of %d vision modules made non-reentrant, for the router losses", changed)
    return changed
