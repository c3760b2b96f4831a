"""The host's SigLIP tower where transformers builds models on the meta device: buffers, missing weights, nesting."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import lacks
from tam_plugin.patches.record import Patch

MODULE = "llava.model.multimodal_encoder.siglip_encoder"
_NAME = "_tam_plugin_pretrained_name"


@functools.lru_cache(maxsize=1)
def loads_on_meta() -> bool:
    """Whether ``from_pretrained`` loses a buffer that is not in the checkpoint, seen on a model of one weight."""
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    class Probe(PreTrainedModel):
        config_class = PretrainedConfig

        def __init__(self, config: PretrainedConfig) -> None:
            super().__init__(config)
            self.built_on = torch.empty(0).device.type
            self.linear = torch.nn.Linear(1, 1, bias=False)
            self.post_init()

        def _init_weights(self, module: torch.nn.Module) -> None:
            pass

    built = Probe.from_pretrained(None, config=PretrainedConfig(), state_dict={"linear.weight": torch.ones(1, 1)})
    return bool(built.built_on == "meta")


def _needed(module: ModuleType) -> bool:
    return loads_on_meta()


def _load_model(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_model(self: Any, device_map: Any = None) -> Any:
        """Like the host's; inside another model's loading, build the encoder empty and leave its weights to that."""
        import torch
        from torch import nn

        if self.is_loaded or torch.empty(0).device.type != "meta":
            return original(self, device_map)
        import sys

        host = sys.modules[MODULE]
        tower = host.SigLipVisionModel(host.SigLipVisionConfig.from_pretrained(self.vision_tower_name))
        del tower.vision_model.encoder.layers[-1:]
        tower.vision_model.head = nn.Identity()
        setattr(tower, _NAME, self.vision_tower_name)
        self.vision_tower = tower.requires_grad_(False)
        self.is_loaded = True
        return None

    return load_model


def _init_weights(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def init_weights(self: Any, module: Any) -> None:
        """Called for each module with something that no checkpoint held; the host's does nothing."""
        import torch

        ids = getattr(module, "position_ids", None)
        if torch.is_tensor(ids) and ids.device.type != "meta":
            ids.copy_(torch.arange(ids.numel(), device=ids.device).view(ids.shape))
        if getattr(self, _NAME, None) and any(not _is_set(p) for p in module.parameters(recurse=False)):
            _fill_missing(self)
        original(self, module)

    return init_weights


def _is_set(parameter: Any) -> bool:
    return getattr(parameter, "_is_hf_initialized", False)


def _fill_missing(tower: Any) -> None:
    """Give a tower that no checkpoint filled the weights of its pretrained name."""
    missing = {name: p for name, p in tower.named_parameters() if not _is_set(p)}
    source = dict(type(tower).from_pretrained(getattr(tower, _NAME)).named_parameters())
    for name, parameter in missing.items():
        parameter.data.copy_(source[name].data)
        parameter._is_hf_initialized = True


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="siglip_meta.init_weights",
        target=f"{MODULE}:SigLipPreTrainedModel._init_weights",
        reason="position_ids is in no checkpoint and is garbage after a load; so are weights that no checkpoint held",
        wrap=_init_weights,
        group="compat",
        signatures=(("self", "module"),),
        needed=_needed,
    ),
    Patch(
        name="siglip_meta.load_model",
        target=f"{MODULE}:SigLipVisionTower.load_model",
        reason="the tower loads itself while the model around it is being loaded, which is an error here",
        wrap=_load_model,
        group="compat",
        signatures=(("self", "device_map"), ("self",)),
        needed=_needed,
    ),
    Patch(
        name="siglip_meta.set_token_in_kwargs",
        target=f"{MODULE}:SigLipVisionConfig._set_token_in_kwargs",
        reason="the host's config calls this when it loads; it was removed, and tokens no longer need to be moved",
        wrap=lambda _absent: staticmethod(lambda kwargs, token=None: None),
        group="compat",
        may_be_absent=True,
        needed=lacks("SigLipVisionConfig._set_token_in_kwargs"),
    ),
)
