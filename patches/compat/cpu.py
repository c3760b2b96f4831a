"""A machine without an accelerator: what the host and transformers ask of CUDA there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.record import Patch


def _no_accelerator(module: ModuleType) -> bool:
    import torch

    available = getattr(getattr(torch, "accelerator", None), "is_available", torch.cuda.is_available)
    return not torch.cuda.is_available() and not available()


def _synchronize(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def synchronize(device: Any = None) -> None:
        """Nothing to wait for: there is no device."""

    return synchronize


def _use_cpu(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def post_init(self: Any) -> None:
        """bf16 on a CPU has to be asked for by ``use_cpu``, which is all that can be meant here."""
        if self.bf16:
            self.use_cpu = True
        original(self)

    return post_init


def _device_map(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def load_pretrained_model(*args: Any, **more: Any) -> Any:
        """Like the host's; any other map sends its tower to CUDA, and "auto" is the CPU here."""
        given = signature.bind(*args, **more)
        given.arguments["device_map"] = "auto"
        return original(*given.args, **given.kwargs)

    return load_pretrained_model


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="cpu.synchronize",
        target="torch.cuda:synchronize",
        reason="the host calls it before it saves, whether train.py is imported or run, and it fails without CUDA",
        wrap=_synchronize,
        group="compat",
        signatures=(("device",),),
        needed=_no_accelerator,
    ),
    Patch(
        name="cpu.use_cpu",
        target="transformers.training_args:TrainingArguments.__post_init__",
        reason="--bf16 True is refused on a machine without an accelerator unless use_cpu is set",
        wrap=_use_cpu,
        group="compat",
        signatures=(("self",),),
        needed=lambda module: _no_accelerator(module) and "use_cpu" in module.TrainingArguments.__dataclass_fields__,
    ),
    Patch(
        name="cpu.device_map",
        target="llava.model.builder:load_pretrained_model",
        reason='the host moves the tower to "cuda" for every device_map but "auto"',
        wrap=_device_map,
        group="compat",
        needed=_no_accelerator,
    ),
)
