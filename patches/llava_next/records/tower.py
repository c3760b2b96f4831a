"""Records with which the host builds the TAM vision tower and a projector per stride."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER, tam_config_from_args
from tam_plugin.patches.record import Patch


def stored_config(config: Any) -> TamConfig | None:
    """The TAM configuration in a model's configuration; None if the model is not a TAM model.

    Raises:
        ConfigError: the tower is ``tam`` but the ``tam`` section is missing or bad.
    """
    if getattr(config, "mm_vision_tower", None) != VISION_TOWER:
        return None
    values = getattr(config, "tam", None)
    if values is None:
        raise ConfigError(
            "the model's configuration has mm_vision_tower = 'tam' but no 'tam' section: it is incomplete"
        )
    return TamConfig.from_dict(values)


def _know_tam(original: Callable) -> Callable:
    @functools.wraps(original)
    def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> Any:
        from tam_plugin.patches.llava_next.model.tower import TamVisionTower
        from tam_plugin.training.zero3 import build_whole

        if hasattr(vision_tower_cfg, "mm_vision_tower"):
            stored = stored_config(vision_tower_cfg)
            if stored is None:
                return original(vision_tower_cfg, **kwargs)
            return build_whole(lambda: TamVisionTower(stored))
        if getattr(vision_tower_cfg, "vision_tower", None) != VISION_TOWER:
            return original(vision_tower_cfg, **kwargs)
        from tam_plugin.patches.llava_next.checkpoints.pretrained import tower_from_siglip

        config = getattr(vision_tower_cfg, "tam", None) or tam_config_from_args(vision_tower_cfg)
        return tower_from_siglip(vision_tower_cfg.vision_tower_pretrained, config)

    return build_vision_tower


def _one_per_stride(original: Callable) -> Callable:
    @functools.wraps(original)
    def build_vision_projector(config: Any, *args: Any, **kwargs: Any) -> Any:
        from tam_plugin.training.zero3 import build_whole
        from tam_plugin.vision.projector import ResolutionProjectors

        tam = stored_config(config)
        if tam is None:
            return original(config, *args, **kwargs)
        return build_whole(lambda: ResolutionProjectors(original(config, *args, **kwargs), tam.projector, tam.moe))

    return build_vision_projector


RECORDS = (
    Patch(
        name="tower.build",
        target="llava.model.multimodal_encoder.builder:build_vision_tower",
        reason="--vision_tower tam and TAM checkpoints get the mixture-of-experts tower; other names go to the host",
        wrap=_know_tam,
        signatures=(("vision_tower_cfg", "kwargs"),),
    ),
    Patch(
        name="projector.build",
        target="llava.model.multimodal_projector.builder:build_vision_projector",
        reason="a TAM model has one projector per pooling stride under the host's name mm_projector",
        wrap=_one_per_stride,
        signatures=(("config", "delay_load", "kwargs"),),
    ),
)
