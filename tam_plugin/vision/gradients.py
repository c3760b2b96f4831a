"""The same set of gradients on every rank, although ranks use different modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch


def with_zero_gradients(output: torch.Tensor, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """``output`` unchanged, with ``parameters`` in its graph: each gets a zero gradient in the backward.

    DDP and ZeRO wait for every parameter's gradient; a module that this rank did not use would leave None.
    Unlike adding ``0 * parameter.sum()``, it reads no values, so NaN or infinity in an unused module stays there.

    Args:
        output: a tensor that the loss depends on.
        parameters: those that must not be left without a gradient; frozen ones are skipped.
    """
    unused = [p for p in parameters if p.requires_grad]
    if not unused or not torch.is_grad_enabled():
        return output
    return _ZeroGradients.apply(output, *unused)


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (grad, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like))
