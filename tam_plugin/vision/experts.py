"""Experts as stacked tensors, computed by one grouped GEMM per layer or in a loop, expert by expert.

Shapes: N tokens, K experts per token, M = N·K assignments, E experts, D in, I intermediate, O out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tam_plugin.errors import ConfigError
from tam_plugin.vision.grouped_gemm import grouped_is_faster, grouped_linear, unsupported_reason


def whole_shape(parameter: torch.Tensor) -> torch.Size:
    """A parameter's shape, also while ZeRO-3 holds it in parts."""
    return getattr(parameter, "ds_shape", parameter.shape)


class StackedLinear(nn.Module):
    """E linear layers: ``weight [E, out, in]``, ``bias [E, out]``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=weight.requires_grad)
        self.bias = nn.Parameter(bias, requires_grad=bias.requires_grad)

    @classmethod
    def from_dense(cls, linear: nn.Linear, num_experts: int) -> StackedLinear:
        """E copies of a layer (co-upcycling); keeps dtype, device and ``requires_grad``.

        A layer without bias gets a zero bias.
        """
        bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
        stacked = cls(*(t.detach().repeat(num_experts, *[1] * t.dim()) for t in (linear.weight, bias)))
        stacked.weight.requires_grad_(linear.weight.requires_grad)
        stacked.bias.requires_grad_(linear.weight.requires_grad if linear.bias is None else bias.requires_grad)
        return stacked

    def grouped(self, rows: torch.Tensor, offsets: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
        """All experts at once, over ``rows [M, in]`` sorted by expert."""
        product = grouped_linear(rows, self.weight.to(rows.dtype), offsets)
        # The bias as a product with a one-hot [M, E]: its gradient is a product too, without atomics.
        return torch.addmm(product, one_hot, self.bias.to(rows.dtype))

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={size}" for name, size in zip(("experts", "out", "in"), whole_shape(self.weight), strict=True)
        )


class StackedExperts(nn.Module):
    """E two-layer MLPs with stacked weights; a token's output is the weighted sum over its K experts.

    Args:
        fc1: first layers, ``[E, I, D]``.
        fc2: second layers, ``[E, O, I]``.
        activation_fn: between them, elementwise.
        backend: ``grouped``, ``reference``, or ``auto`` (the faster of the two, see
            :func:`~tam_plugin.vision.grouped_gemm.grouped_is_faster`).
    """

    def __init__(
        self,
        fc1: StackedLinear,
        fc2: StackedLinear,
        activation_fn: Callable[[torch.Tensor], torch.Tensor],
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.fc1 = fc1
        self.fc2 = fc2
        self.activation_fn = activation_fn
        self.backend = backend

    @property
    def num_experts(self) -> int:
        """Number of experts, E."""
        return whole_shape(self.fc1.weight)[0]

    @property
    def backend_in_use(self) -> str:
        """``grouped`` or ``reference``: what a forward over many tokens would run now (see :meth:`backend_for`).

        Raises:
            ConfigError: ``grouped`` was asked for by name and cannot run here.
        """
        return self.backend_for(math.inf)

    def backend_for(self, rows_per_expert: float) -> str:
        """``grouped`` or ``reference``: what a forward would run now (device, dtype, autocast, gradients, size).

        Args:
            rows_per_expert: N·K / E.

        Raises:
            ConfigError: ``grouped`` was asked for by name and cannot run here.
        """
        if self.backend == "reference":
            return "reference"
        weight = self.fc1.weight
        dtype = _compute_dtype(weight)
        _, inner, width = whole_shape(weight)
        widths = (width, inner, whole_shape(self.fc2.weight)[1])
        device_type = weight.device.type
        reason = unsupported_reason(device_type, dtype, widths)
        if self.backend == "grouped":
            if reason is None:
                return "grouped"
            raise ConfigError(
                f"MoeConfig.backend = 'grouped': grouped GEMM cannot run on {device_type} in {dtype}: {reason}; "
                "use 'auto' or 'reference'"
            )
        trains_weights = torch.is_grad_enabled() and weight.requires_grad
        faster = reason is None and grouped_is_faster(
            device_type, widths, rows_per_expert, trains_weights=trains_weights
        )
        return "grouped" if faster else "reference"

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """Send each token through its experts.

        Args:
            tokens: ``[N, D]``.
            weights: ``[N, K]``, float32.
            indices: ``[N, K]``, distinct experts in each row.

        Returns:
            ``[N, O]`` in the dtype of a dense layer's output (autocast's where it is on). The sum over K is
            taken in float32.
        """
        if self.backend_for(indices.numel() / self.num_experts) == "grouped":
            return self._grouped(tokens, weights, indices)
        return self._reference(tokens, weights, indices)

    def _reference(self, tokens: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        dtype = _compute_dtype(tokens)
        out = torch.zeros(tokens.shape[0], self.fc2.weight.shape[1], device=tokens.device, dtype=weights.dtype)
        first = zip(self.fc1.weight.unbind(), self.fc1.bias.unbind(), strict=True)
        second = zip(self.fc2.weight.unbind(), self.fc2.bias.unbind(), strict=True)
        for expert, (fc1, fc2) in enumerate(zip(first, second, strict=True)):
            rows, slots = (indices == expert).nonzero(as_tuple=True)
            hidden = self.activation_fn(F.linear(tokens[rows], *fc1))
            out = out.index_add(0, rows, F.linear(hidden, *fc2) * weights[rows, slots].unsqueeze(-1))
        return out.to(dtype)

    def _grouped(self, tokens: torch.Tensor, weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        dtype = _compute_dtype(tokens)
        top_k = indices.shape[1]
        experts = torch.arange(self.num_experts, device=indices.device)
        sorted_experts, order = indices.flatten().sort(stable=True)
        inverse = torch.empty_like(order).scatter(0, order, torch.arange(order.shape[0], device=order.device))
        offsets = torch.searchsorted(sorted_experts, experts, right=True, out_int32=True)
        one_hot = (sorted_experts.unsqueeze(1) == experts).to(dtype)

        rows = _GatherRows.apply(tokens.to(dtype), order, inverse, top_k)
        hidden = self.activation_fn(self.fc1.grouped(rows, offsets, one_hot))
        out = self.fc2.grouped(hidden, offsets, one_hot)
        out = _GatherRows.apply(out, inverse, order, 1).view(-1, top_k, self.fc2.weight.shape[1])
        return (out * weights.unsqueeze(-1)).sum(dim=1).to(dtype)

    def extra_repr(self) -> str:
        if self.fc1.weight.is_meta:
            return f"backend={self.backend}"
        return f"backend={self.backend}, backend_in_use={self.backend_in_use}"


class _GatherRows(torch.autograd.Function):
    """``x[index // copies]`` where ``index`` is a permutation of the copies; gathers in the backward as well.

    Autograd's own backward of indexing adds with atomics on CUDA and row by row on CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor, inverse: torch.Tensor, copies: int) -> torch.Tensor:
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return x.index_select(0, index if copies == 1 else index // copies)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        grad = grad.index_select(0, inverse)
        if ctx.copies > 1:
            grad = grad.view(-1, ctx.copies, grad.shape[1]).sum(dim=1)
        return grad, None, None, None


def _compute_dtype(tensor: torch.Tensor) -> torch.dtype:
    """The dtype that a dense linear layer would multiply ``tensor`` in."""
    device_type = tensor.device.type
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return tensor.dtype
