"""Checkpoints of transformers' LlavaOnevision classes as the core sees them, saved by transformers 4 or 5.

Tensors keep the names of the generation that saved them; loading knows both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tam_plugin.bounds import check_sizes, reading_config
from tam_plugin.checkpoint.tensor_layout import Shapes, TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import check_encoder_fields, check_experts
from tam_plugin.patches.hosts.onevision import DENSE_MODEL_TYPE, TAM_MODEL_TYPE, Onevision
from tam_plugin.patches.onevision.configuration import NEWLINE_POSITION

DENSE_CLASS = "LlavaOnevisionForConditionalGeneration"
TAM_CLASS = "TamOnevisionForConditionalGeneration"
NAMES = ("vision_tower.encoder.layers.0.", "multi_modal_projector.")
"""Starts of names that every checkpoint has, for where only config.json is known."""
_ENCODER = re.compile(r"((?:model\.)?vision_tower\.(?:vision_model\.)?)encoder\.layers\.0\.")
_PROJECTOR = re.compile(r"((?:model\.)?multi_modal_projector\.)")


@dataclass(frozen=True, kw_only=True)
class OnevisionTensorLayout(TensorLayout):
    """A LlavaOnevision checkpoint."""

    def tam_config(self, tam: TamConfig) -> dict[str, Any]:
        """See :class:`TensorLayout`."""
        changes = {
            "model_type": TAM_MODEL_TYPE,
            "architectures": [TAM_CLASS],
            "newline_position": self.newline_position,
            "tam": tam.to_dict(),
        }
        return {**self.config, **changes}

    def remembered(self) -> dict[str, Any]:
        """See :class:`TensorLayout`."""
        return {"architectures": self.config.get("architectures")}

    def dense_config(self, remembered: dict[str, Any] | None, vision_tower: str | None) -> dict[str, Any]:
        """See :class:`TensorLayout`; the tower is in config.json itself."""
        if vision_tower is not None:
            raise ConfigError(
                f"--vision-tower {vision_tower}: a {self.host} checkpoint carries its tower; leave it out"
            )
        values = {name: value for name, value in self.config.items() if name != "tam"}
        if values.get("newline_position") == NEWLINE_POSITION:  # the host's own, which a dense checkpoint does not say
            del values["newline_position"]
        architectures = (remembered or {}).get("architectures")
        if (
            not architectures
            or not isinstance(architectures, list)
            or not all(isinstance(name, str) for name in architectures)
        ):
            architectures = [DENSE_CLASS]
        return {**values, "model_type": DENSE_MODEL_TYPE, "architectures": architectures}

    def check(self, shapes: Shapes, tam: TamConfig) -> None:
        """See :class:`TensorLayout`."""
        check_experts(shapes, tam.moe, self.where)


def tensor_layout_of(config: dict[str, Any], names: Iterable[str], where: str) -> OnevisionTensorLayout:
    """The layout of a checkpoint.

    Args:
        config: its config.json.
        names: its tensors.
        where: the checkpoint, for messages.

    Raises:
        ConfigError: its tower is no SigLIP, or its tensors have other names than either generation gives them.
    """
    from transformers import LlavaOnevisionConfig

    names = list(names)
    given = config.get("vision_config")
    kind = given.get("model_type") if isinstance(given, dict) else None
    if kind != "siglip_vision_model":
        raise ConfigError(f"{where}: vision_config.model_type = {kind!r}; expected 'siglip_vision_model'")
    check_sizes(config, where)
    with reading_config(where):
        whole: Any = LlavaOnevisionConfig(
            **{k: v for k, v in config.items() if k not in ("model_type", "architectures")}
        )
    check_encoder_fields(whole.vision_config, f"{where}: vision_config")
    encoder, projector = (
        next((found[1] for name in names if (found := pattern.match(name))), None) for pattern in (_ENCODER, _PROJECTOR)
    )
    if encoder is None or projector is None:
        lacking = "vision_tower.*encoder.layers.0.*" if encoder is None else "multi_modal_projector.*"
        raise ConfigError(f"{where} holds no {lacking}: expected the weights of a {DENSE_CLASS}")
    tam = TamConfig.from_dict(config.get("tam")) if config["model_type"] == TAM_MODEL_TYPE else None
    return OnevisionTensorLayout(
        host=Onevision.label,
        where=where,
        config=config,
        encoder=encoder,
        num_layers=whole.vision_config.num_hidden_layers,
        vision=whole.vision_config.to_dict(),
        projector=projector,
        projector_linears=("linear_1", "linear_2"),
        language=whole.text_config.to_dict(),
        projector_type="mlp2x_gelu",
        # transformers builds SigLIP's pooling head unless told otherwise.
        pooling_head=bool(config["vision_config"].get("vision_use_head", True)),
        newline_position=config.get("newline_position", NEWLINE_POSITION),
        tam=tam,
    )
