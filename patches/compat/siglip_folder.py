"""A SigLIP that lies in a folder: the host takes every tower that is given as an existing path for a CLIP."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from tam_plugin.patches.record import Patch

BUILDER = "llava.model.multimodal_encoder.builder"


def _build(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def build_vision_tower(vision_tower_cfg: Any, **kwargs: Any) -> Any:
        from tam_plugin.patches.sources import is_siglip_folder

        # The host's own way of reading the name: of a model's configuration, or of the arguments.
        tower = getattr(vision_tower_cfg, "mm_vision_tower", getattr(vision_tower_cfg, "vision_tower", None))
        if not isinstance(tower, str) or not is_siglip_folder(tower):
            return original(vision_tower_cfg, **kwargs)
        import sys

        return sys.modules[BUILDER].SigLipVisionTower(tower, vision_tower_cfg=vision_tower_cfg, **kwargs)

    return build_vision_tower


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="siglip_folder.build_vision_tower",
        target=f"{BUILDER}:build_vision_tower",
        reason="a SigLIP in a local folder is built as what its config.json says, not as a CLIP",
        wrap=_build,
        group="compat",
        signatures=(("vision_tower_cfg", "kwargs"),),
    ),
)
