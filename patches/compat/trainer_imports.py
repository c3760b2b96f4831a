"""Names that the host's trainer, or peft under it, takes from places that no longer have them."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import lacks
from tam_plugin.patches.record import Patch


def _gradient_accumulation_plugin(_absent: Any) -> Any:
    from accelerate.utils import GradientAccumulationPlugin

    return GradientAccumulationPlugin


def _layer_norms(_absent: Any) -> list[type]:
    """Classes whose weights are not decayed; transformers kept LayerNorm alone in this list."""
    import torch.nn

    return [torch.nn.LayerNorm]


def _peft_reads_it_unimported(module: ModuleType) -> bool:
    return not hasattr(module, "tensor") and importlib.util.find_spec("peft") is not None


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="trainer_imports.distributed_tensor",
        target="torch.distributed:tensor",
        reason="peft reads torch.distributed.tensor without importing it",
        wrap=lambda _absent: importlib.import_module("torch.distributed.tensor"),
        group="compat",
        may_be_absent=True,
        needed=_peft_reads_it_unimported,
    ),
    Patch(
        name="trainer_imports.GradientAccumulationPlugin",
        target="transformers.trainer:GradientAccumulationPlugin",
        reason="the host's trainer imports it from here",
        wrap=_gradient_accumulation_plugin,
        group="compat",
        may_be_absent=True,
        needed=lacks("GradientAccumulationPlugin"),
        requires=("accelerate.utils:GradientAccumulationPlugin",),
    ),
    Patch(
        name="trainer_imports.ALL_LAYERNORM_LAYERS",
        target="transformers.trainer:ALL_LAYERNORM_LAYERS",
        reason="the host's trainer imports it from here",
        wrap=_layer_norms,
        group="compat",
        may_be_absent=True,
        needed=lacks("ALL_LAYERNORM_LAYERS"),
    ),
)
