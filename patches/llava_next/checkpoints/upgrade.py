"""From what a training run starts with to the TAM model that its arguments ask for (co-upcycling, Sec. 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tam_plugin.budget.stored import policy_to_store
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import check_names
from tam_plugin.patches.llava_next.checkpoints.pretrained import shapes_of, tower_from_dense, upcycled
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER, tam_config_from_args
from tam_plugin.patches.llava_next.command_line.preflight import check_siglip_source, not_siglip
from tam_plugin.patches.llava_next.model.structure import check_same_structure, in_parts, same_modules
from tam_plugin.patches.llava_next.model.tower import TamVisionTower, encoder_fields, siglip_config
from tam_plugin.training.zero3 import partitioned
from tam_plugin.vision.moe_mlp import moe_layers
from tam_plugin.vision.projector import ResolutionProjectors


def upgrade_model(model: Any, model_args: Any, *, as_list: bool) -> TamConfig:
    """Give the host's model its TAM tower, its projectors and the configuration that a reload needs.

    The result computes what the model computed before, at every stride. A model without any tower gets the
    configuration alone: the host builds its parts from it.

    Args:
        model: a ``LlavaMetaModel``: with a SigLIP tower, with a TAM tower, or without any.
        model_args: the host's, with ``tam_args``.
        as_list: keep the tower out of the module tree, as the host does under FSDP.

    Raises:
        ConfigError: another kind of tower, or a structure that the checkpoint does not have.
    """
    before, config = model.get_vision_tower(), model.config
    stored = before.tam_config if isinstance(before, TamVisionTower) else None
    tam = tam_config_from_args(model_args, stored, folder=_start(model_args, config))
    tam = _with_pool_mode(tam, model_args, config, stored)
    tam = tam.replace(policy=policy_to_store(tam.policy))
    if before is not None and partitioned(model) and not same_modules(stored, tam):
        raise ConfigError(in_parts(model_args.model_name_or_path, stored, tam))
    if before is None:
        values = check_siglip_source(model_args.vision_tower_pretrained)
        tam = tam.replace(vision_encoder=encoder_fields(siglip_config(values)))
    else:
        if stored is None:
            tower = _from_host_tower(before, tam)
        else:
            check_same_structure(stored, tam)
            tower = _reconfigured(before, tam)
        tam = tower.tam_config
        _set_tower(model, tower, as_list)
        model.mm_projector = _projectors(model.mm_projector, tam)
    config.mm_vision_tower, config.tam = VISION_TOWER, tam.to_dict()
    config.mm_spatial_pool_mode = tam.projector.pool_mode
    return tam


def _start(model_args: Any, config: Any) -> str | None:
    """Where the checkpoint lies that the model was loaded from."""
    return getattr(model_args, "model_name_or_path", None) or getattr(config, "_name_or_path", None)


def load_projector(model: Any, path: str) -> None:
    """Load a pretrained projector (and resampler) file; a plain projector goes to every stride.

    Raises:
        ConfigError: the file holds other tensors than this model's projectors.
    """
    held = torch.load(path, map_location="cpu", weights_only=True)

    def under(keyword: str) -> dict[str, torch.Tensor]:
        return {name.split(f"{keyword}.", 1)[1]: tensor for name, tensor in held.items() if f"{keyword}." in name}

    weights, where = under("mm_projector"), f"--pretrain_mm_mlp_adapter {path!r}"
    projectors: ResolutionProjectors = model.mm_projector
    if not any(name.partition(".")[0] in dict(projectors.named_children()) for name in weights):
        if projectors.config.gate == "soft":
            raise ConfigError(
                f"{where}: a plain projector cannot fill a soft mixture; use --tam_projector_gate resolution"
            )
        weights = {f"{child}.{name}": t for child, _ in projectors.named_children() for name, t in weights.items()}
    check_names(shapes_of(weights), shapes_of(projectors.state_dict()), where)
    projectors.load_state_dict(weights)
    if resampler := under("vision_resampler"):
        model.vision_resampler.load_state_dict(resampler, strict=False)


def _with_pool_mode(tam: TamConfig, model_args: Any, config: Any, stored: TamConfig | None) -> TamConfig:
    """The host's pool mode, unless an argument, a file or the checkpoint says otherwise."""
    args = getattr(model_args, "tam_args", None)
    said = stored is not None or (args is not None and (args.tam_pool_mode is not None or args.tam_config is not None))
    mode = getattr(config, "mm_spatial_pool_mode", None)
    return tam if said or mode is None else tam.replace(projector={"pool_mode": mode})


def _from_host_tower(tower: Any, tam: TamConfig) -> TamVisionTower:
    from llava.model.multimodal_encoder.siglip_encoder import SigLipVisionTower

    if not isinstance(tower, SigLipVisionTower):
        raise ConfigError(not_siglip(getattr(tower, "vision_tower_name", type(tower).__name__)))
    tower.load_model()
    return tower_from_dense(tower.vision_tower, encoder_fields(tower.vision_tower.config), tam)


def _reconfigured(tower: TamVisionTower, tam: TamConfig) -> TamVisionTower:
    """The same tower with the routing of ``tam``; a dense one is upcycled if ``tam`` has experts."""
    for layer in moe_layers(tower):
        layer.config = layer.gate.config = tam.moe
        layer.experts.backend = tam.moe.backend
    return upcycled(tower, tam)


def _projectors(projector: nn.Module, tam: TamConfig) -> nn.Module:
    if not isinstance(projector, ResolutionProjectors):
        return ResolutionProjectors(projector, tam.projector, tam.moe)
    if projector.config.gate == "single" and tam.projector.gate != "single":
        return ResolutionProjectors(projector.get_submodule("shared"), tam.projector, tam.moe)
    projector.config = tam.projector
    return projector


def _set_tower(model: Any, tower: TamVisionTower, as_list: bool) -> None:
    if hasattr(model, "vision_tower"):
        del model.vision_tower
    model.vision_tower = [tower] if as_list else tower
