"""ZeRO-3: which modules are gathered as one, so that every rank gathers the same at the same time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from tam_plugin.files import read_json
from tam_plugin.vision import MoeMlp, ResolutionProjectors

Built = TypeVar("Built", bound=nn.Module)
ZERO_3 = 3
"""The stage that splits parameters too."""


def build_whole(make: Callable[[], Built]) -> Built:
    """Build a module whose construction reads parameters, also where DeepSpeed splits them as they are made.

    Inside ``deepspeed.zero.Init`` (transformers loads so under ZeRO-3) each parameter is taken apart as soon as its
    module is built, so nothing can be copied into experts. Here the module is built whole and taken apart then.

    Args:
        make: builds it.
    """
    partitioning: Any = sys.modules.get("deepspeed.runtime.zero.partition_parameters")
    if partitioning is None or not partitioning.zero_init_context:
        return make()
    partitioning.shutdown_init_context()
    try:
        module = make()
    finally:
        partitioning.restore_init_context()
    # What zero.Init does after each constructor; making a zero.Init of its own would read the configuration anew.
    partitioning.top_level_context._convert_to_zero_parameters(module.parameters(recurse=True))
    return module


def partitioned(model: nn.Module) -> bool:
    """Whether ZeRO-3 holds this model's parameters in parts."""
    return any(hasattr(p, "ds_id") for p in model.parameters())


def cast_unpartitioned(model: nn.Module, dtype: torch.dtype) -> int:
    """Bring parameters that DeepSpeed does not hold yet to the precision of those it does; before ``initialize``.

    The other stages cast a model as a whole. Here nobody does, and one list of parameters to train may hold one
    precision only; but newer versions of peft make LoRA's weights in float32. The optimizer's copies are float32 all
    the same.

    Returns:
        How many were cast.
    """
    others = [p for p in model.parameters() if not hasattr(p, "ds_id") and p.is_floating_point() and p.dtype != dtype]
    for parameter in others:
        parameter.data = parameter.data.to(dtype)
    return len(others)


def set_leaf_modules(model: nn.Module) -> list[nn.Module]:
    """Mark mixtures and projectors as leaf modules of ZeRO-3; call it before ``deepspeed.initialize``.

    The stacked weights of a mixture are read by their parent, and ranks whose videos differ in stride take different
    projectors: gathered child by child, ranks would wait for each other forever.

    Returns:
        The modules that were marked.

    Raises:
        ImportError: DeepSpeed is not there.
    """
    import deepspeed

    for module in model.modules():
        if isinstance(module, (MoeMlp, ResolutionProjectors)):
            module.register_forward_pre_hook(_with_gradient)
    classes = [c for c in (MoeMlp, ResolutionProjectors) if any(isinstance(m, c) for m in model.modules())]
    return deepspeed.utils.set_z3_leaf_modules(model, classes) if classes else []


def _with_gradient(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let an input need a gradient: DeepSpeed reduces a leaf module's gradients when those of its inputs are known.

    Behind frozen layers no input needs one, and they would be reduced before they are there.
    """
    tensors = [x for x in inputs if isinstance(x, torch.Tensor)]
    if not (module.training and torch.is_grad_enabled()) or any(x.requires_grad for x in tensors):
        return inputs
    return tuple(x.detach().requires_grad_() if x is tensors[0] else x for x in inputs)


def zero_stage(deepspeed_config: Any) -> int | None:
    """The stage that a Trainer's ``args.deepspeed`` asks for; None without DeepSpeed.

    Args:
        deepspeed_config: a file's name, a mapping, or None.
    """
    if deepspeed_config is None:
        return None
    if isinstance(deepspeed_config, dict):
        values = deepspeed_config
    else:
        values = read_json(deepspeed_config, what="--deepspeed", strict=False)
    return int(values.get("zero_optimization", {}).get("stage", 0))
