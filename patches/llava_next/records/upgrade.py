"""The record that upgrades a model when training starts."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER
from tam_plugin.patches.llava_next.records.tower import stored_config
from tam_plugin.patches.record import Patch


def _upgrade_first(original: Callable) -> Callable:
    @functools.wraps(original)
    def initialize_vision_modules(self: Any, model_args: Any, fsdp: Any = None) -> Any:
        if model_args.vision_tower != VISION_TOWER:
            if self.get_vision_tower() is not None and stored_config(self.config) is not None:
                raise ConfigError(
                    f"--vision_tower {model_args.vision_tower}: the checkpoint has a TAM tower, which the host would "
                    f"keep under that name; use --vision_tower {VISION_TOWER}"
                )
            return original(self, model_args, fsdp=fsdp)
        from tam_plugin.patches.llava_next.checkpoints.upgrade import load_projector, upgrade_model

        adapter = model_args.pretrain_mm_mlp_adapter
        model_args = copy.copy(model_args)
        model_args.tam = upgrade_model(self, model_args, as_list=bool(fsdp))
        model_args.pretrain_mm_mlp_adapter = None
        result = original(self, model_args, fsdp=fsdp)
        if adapter is not None:
            load_projector(self, adapter)
        return result

    return initialize_vision_modules


RECORDS = (
    Patch(
        name="upgrade.initialize",
        target="llava.model.llava_arch:LlavaMetaModel.initialize_vision_modules",
        reason="--vision_tower tam on an existing checkpoint upgrades its SigLIP tower and copies its projector",
        wrap=_upgrade_first,
        signatures=(("self", "model_args", "fsdp"),),
    ),
)
