"""Checkpoints of LLaVA-NeXT as the core sees them: names, the encoder's fields, and what config.json becomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from tam_plugin.bounds import check_sizes
from tam_plugin.checkpoint.tensor_layout import Shapes, TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import check_experts, check_names
from tam_plugin.patches.hosts.llava_next import LlavaNext
from tam_plugin.patches.llava_next.checkpoints.pretrained import shapes_of
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER
from tam_plugin.patches.llava_next.command_line.preflight import (
    check_language_model,
    check_siglip_source,
    check_tower_path,
)
from tam_plugin.patches.llava_next.model.model_config import newline_of
from tam_plugin.patches.llava_next.model.siglip import DROPPED_LAYERS
from tam_plugin.patches.llava_next.model.tower import TamVisionTower, encoder_fields, siglip_config
from tam_plugin.patches.sources import is_siglip

TOWER = "model.vision_tower."
ENCODER = f"{TOWER}vision_tower.vision_model."
PROJECTOR = "model.mm_projector."
NAMES = (f"{ENCODER}encoder.layers.0.", PROJECTOR)
"""Starts of names that every checkpoint has, for where only config.json is known."""
SO400M = "google/siglip-so400m-patch14-384"
SO400M_FIELDS = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
}
"""What the host's own ``SigLipVisionConfig`` says of the tower that all its video models have."""

_POOL_MODE = "mm_spatial_pool_mode"


@dataclass(frozen=True, kw_only=True)
class LlavaNextTensorLayout(TensorLayout):
    """A LLaVA-NeXT checkpoint."""

    def complete(self, tam: TamConfig, *, pool_mode_given: bool) -> TamConfig:
        """See :class:`TensorLayout`: as ``upgrade_model`` does."""
        mode = self.config.get(_POOL_MODE)
        if mode is not None and not pool_mode_given:
            tam = tam.replace(projector={"pool_mode": mode})
        return super().complete(tam, pool_mode_given=pool_mode_given).replace(vision_encoder=self.vision)

    def tam_config(self, tam: TamConfig) -> dict[str, Any]:
        """See :class:`TensorLayout`."""
        changes = {"mm_vision_tower": VISION_TOWER, "tam": tam.to_dict(), _POOL_MODE: tam.projector.pool_mode}
        return {**self.config, **changes}

    def remembered(self) -> dict[str, Any]:
        """See :class:`TensorLayout`."""
        return {name: self.config.get(name) for name in ("mm_vision_tower", _POOL_MODE)}

    def dense_config(self, remembered: dict[str, Any] | None, vision_tower: str | None) -> dict[str, Any]:
        """See :class:`TensorLayout`."""
        tower = vision_tower or (remembered or {}).get("mm_vision_tower")
        if tower is None and self.vision == SO400M_FIELDS:
            tower = SO400M
        if not isinstance(tower, str) or not is_siglip(tower):
            raise ConfigError(
                f"--vision-tower {tower or ''}: the host finds a dense tower by its hub name, which this checkpoint "
                f"does not say; expected the name of a SigLIP encoder, such as {SO400M}"
            )
        values = {name: value for name, value in self.config.items() if name != "tam"}
        values["mm_vision_tower"] = tower
        if remembered is not None:
            values[_POOL_MODE] = remembered.get(_POOL_MODE)
            if values[_POOL_MODE] is None:
                del values[_POOL_MODE]
        return values

    def check(self, shapes: Shapes, tam: TamConfig) -> None:
        """See :class:`TensorLayout`."""
        with torch.device("meta"):
            tower = TamVisionTower(tam)
        expected = {TOWER + name: shape for name, shape in shapes_of(tower.state_dict()).items()}
        check_experts({name: shape for name, shape in shapes.items() if name.startswith(TOWER)}, tam.moe, self.where)
        check_names(shapes, expected, self.where)


def tensor_layout_of(config: dict[str, Any], names: Iterable[str], where: str) -> LlavaNextTensorLayout:
    """The layout of a checkpoint.

    Args:
        config: its config.json.
        names: its tensors.
        where: the checkpoint, for messages.

    Raises:
        ConfigError: its tower is no SigLIP, or its language model takes still images only.
        InputError: the tower's fields are nowhere to be read.
    """
    check_sizes(config, where)
    tower: Any = config.get("mm_vision_tower")
    notes: tuple[str, ...] = ()
    tam = None
    if tower == VISION_TOWER:
        tam = TamConfig.from_dict(config.get("tam"))
        fields = encoder_fields(siglip_config(tam.vision_encoder))
    else:
        check_tower_path(tower, where)
        if not is_siglip(tower):
            raise ConfigError(
                f"{where}: the vision tower (mm_vision_tower) is {tower!r}; expected a SigLIP encoder, such as "
                f"{SO400M}, or the folder of one"
            )
        check_language_model(config, where)
        fields, note = _dense_fields(tower)
        notes = (note,)
    if not any(name.startswith(ENCODER) for name in names):
        raise ConfigError(
            f"{where} holds no {ENCODER}*: it was saved without its vision tower; expected a checkpoint with it"
        )
    return LlavaNextTensorLayout(
        host=LlavaNext.label,
        where=where,
        config=config,
        encoder=ENCODER,
        num_layers=fields["num_hidden_layers"] - DROPPED_LAYERS,
        vision=fields,
        projector=PROJECTOR,
        projector_linears=("0", "2"),
        language=config,
        projector_type=config.get("mm_projector_type", "linear"),
        pooling_head=False,  # the host takes it off
        newline_position=newline_of(config, where),
        tam=tam,
        notes=notes,
    )


def _dense_fields(tower: str) -> tuple[dict[str, Any], str]:
    """The encoder's fields, and where they come from: the local hub cache, what the host knows, or the hub."""
    from transformers.utils import cached_file

    try:
        cached_file(tower, "config.json", local_files_only=True)
    except OSError:
        if tower == SO400M:
            return dict(SO400M_FIELDS), f"the encoder's fields are the host's own for {tower}"
    return encoder_fields(
        siglip_config(check_siglip_source(tower, "mm_vision_tower"))
    ), f"the encoder's fields are those of {tower}"
