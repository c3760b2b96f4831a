"""The same set of gradients on every rank, in the same order, although ranks use different modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn


def with_zero_gradients(output: torch.Tensor, parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    """``output`` unchanged, with ``parameters`` in its graph: each gets a zero gradient in the backward.

    DDP and ZeRO wait for every parameter's gradient; a module that this rank did not use would leave None.
    Unlike adding ``0 * parameter.sum()``, it reads no values, so NaN or infinity in an unused module stays there.

    Args:
        output: a tensor that the loss depends on.
        parameters: those that must not be left without a gradient; frozen ones are skipped, and those that ZeRO-3
            has not gathered: no rank uses them now.
    """
    unused = [p for p in parameters if p.requires_grad and not (hasattr(p, "ds_id") and not p.numel())]
    if not unused or not torch.is_grad_enabled():
        return output
    return _ZeroGradients.apply(output, *unused)


def project_in_step(module: nn.Module, groups: Sequence[tuple[str, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """Apply children of ``module``; all its parameters get a gradient, in one order whatever children are used.

    ZeRO-2 fills its buckets as gradients arrive and sums the ranks' buckets as they are. Were the zeros of an unused
    child to arrive at another time than the gradients of a used one, ranks that use different children would add the
    gradient of one parameter to that of another, without any error. So every parameter goes through a chain of nodes
    in the graph that passes on one gradient after the other, zeros for what this rank did not use.

    Args:
        module: the parent.
        groups: pairs of a child's name and its input.

    Returns:
        The children's outputs, in order.
    """
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    if not named or not torch.is_grad_enabled():
        return tuple(module.get_submodule(child)(inputs) for child, inputs in groups)
    aliases: tuple[torch.Tensor, ...] = ()
    for _, parameter in reversed(named):
        aliases = _InOrder.apply(parameter, *aliases)
    by_name = {name: alias for (name, _), alias in zip(named, aliases, strict=True)}
    outputs = []
    for child, inputs in groups:
        own = {name.removeprefix(f"{child}."): t for name, t in by_name.items() if name.startswith(f"{child}.")}
        outputs.append(torch.func.functional_call(module.get_submodule(child), own, (inputs,)))
    return tuple(outputs)


class _InOrder(torch.autograd.Function):
    """Identity; its backward frees the first gradient, and the others only then."""

    @staticmethod
    def forward(ctx: Any, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return grads  # autograd filled in zeros for those that nothing used


class _ZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        ctx.like = [(p.shape, p.dtype, p.device) for p in parameters]
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (grad, *(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype, device in ctx.like))
