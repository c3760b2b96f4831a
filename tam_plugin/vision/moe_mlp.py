"""MoeMlp: the mixture that takes the place of an encoder layer's MLP (Sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import nn

from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.vision.experts import StackedExperts, StackedLinear
from tam_plugin.vision.losses import assignment_mask, balance_loss, z_loss
from tam_plugin.vision.router import Router, Routing


class LayerRecord(NamedTuple):
    """What one mixture layer reports of one forward.

    Attributes:
        balance_loss: float32 scalar, with its gradient.
        z_loss: float32 scalar, with its gradient.
        assignments: ``[B, E]`` float32, tokens of each batch row (a frame) that took each expert.
        weight_sums: ``[B, E]`` float32, sum of those tokens' weights.
    """

    balance_loss: torch.Tensor
    z_loss: torch.Tensor
    assignments: torch.Tensor
    weight_sums: torch.Tensor


class MoeMlp(nn.Module):
    """Router and experts in place of a two-layer MLP: ``[..., D] -> [..., O]``.

    Losses and routing are reported only while :func:`tam_plugin.vision.collect_routing` listens, so nothing is
    kept otherwise, and a recomputation by gradient checkpointing reports nothing.

    Args:
        fc1: ``D -> I``, copied into every expert.
        activation_fn: between the layers.
        fc2: ``I -> O``, copied into every expert.
        config: experts, K, router, backend.
    """

    def __init__(
        self,
        fc1: nn.Linear,
        activation_fn: Callable[[torch.Tensor], torch.Tensor],
        fc2: nn.Linear,
        config: MoeConfig,
    ) -> None:
        super().__init__()
        self.config = config
        weight = fc1.weight
        self.gate = Router(weight.shape[1], config, device=weight.device, dtype=weight.dtype)
        self.gate.weight.requires_grad_(weight.requires_grad)
        self.experts = StackedExperts(
            StackedLinear.from_dense(fc1, config.num_experts),
            StackedLinear.from_dense(fc2, config.num_experts),
            activation_fn,
            config.backend,
        )
        self._records: list[LayerRecord] | None = None
        self._frame_experts: list[int] | None = None  # of the frames to come, see route_by_task

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[..., D]`` → ``[..., O]``; the first dimension is what statistics are kept by (frames)."""
        tokens = hidden_states.reshape(-1, hidden_states.shape[-1])
        routing = self.gate(tokens, self._named_experts(hidden_states))
        # With a graph the losses are computed whether or not anyone listens: a checkpoint's recomputation runs
        # after the collector has closed and must save the same tensors as its forward did. Without tokens there
        # is no mean to report.
        if tokens.shape[0] and (self._records is not None or torch.is_grad_enabled()):
            record = self._record(routing, hidden_states.shape[0])
            # While a backward runs, this is such a recomputation: it was reported before.
            if self._records is not None and not _in_backward():
                self._records.append(record)
        out = self.experts(tokens, routing.weights, routing.indices)
        return out.unflatten(0, hidden_states.shape[:-1])

    def _named_experts(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """``[N]``, the expert of each token under ``by_task``; None in other modes."""
        if self.config.router_mode != "by_task":
            return None
        if torch.is_grad_enabled():
            raise ConfigError("MoeConfig.router_mode = 'by_task' is for inference: run it under torch.inference_mode()")
        frames, named = hidden_states.shape[0], self._frame_experts
        if named is None or len(named) < frames:
            raise ConfigError(
                f"MoeConfig.router_mode = 'by_task': {frames} frames were given, the task of {len(named or ())} is "
                "known: run the encoder inside tam_plugin.vision.route_by_task (inference, one beam)"
            )
        experts = torch.tensor(named[:frames], device=hidden_states.device)
        del named[:frames]
        return experts.repeat_interleave(hidden_states[0].shape[:-1].numel())

    def _record(self, routing: Routing, batch: int) -> LayerRecord:
        mask = assignment_mask(routing.indices, self.config.num_experts)
        weights = torch.zeros_like(mask).scatter(1, routing.indices, routing.weights.detach().to(mask.dtype))
        return LayerRecord(
            balance_loss(routing.probabilities, mask, self.config.top_k),
            z_loss(routing.logits),
            mask.view(batch, -1, self.config.num_experts).sum(dim=1),
            weights.view(batch, -1, self.config.num_experts).sum(dim=1),
        )

    def to_dense(self, expert: int | None = None) -> tuple[nn.Linear, nn.Linear]:
        """Dense ``(fc1, fc2)``: one expert's, or the average of all (the inverse of upcycling).

        Raises:
            InputError: there is no such expert.
        """
        if expert is not None and not 0 <= expert < self.config.num_experts:
            raise InputError(f"expert {expert!r}: expected 0 to {self.config.num_experts - 1}, or None for the average")
        first, second = (_dense_linear(layer, expert) for layer in (self.experts.fc1, self.experts.fc2))
        return first, second


def _in_backward() -> bool:
    # Compiled code cannot ask; there a collector has to be closed before the backward, as its example shows.
    return not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1


def moe_layers(module: nn.Module) -> Iterator[MoeMlp]:
    """The mixture layers inside ``module``, in order."""
    return (layer for layer in module.modules() if isinstance(layer, MoeMlp))


def _dense_linear(layer: StackedLinear, expert: int | None) -> nn.Linear:
    weight, bias = (
        (t.float().mean(dim=0).to(t.dtype) if expert is None else t[expert].clone())
        for t in (layer.weight.detach(), layer.bias.detach())
    )
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear
