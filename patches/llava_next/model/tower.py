"""The TAM vision tower with the interface that the host expects of a vision tower."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tam_plugin.bounds import check_sizes, reading_config
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import check_encoder_fields
from tam_plugin.patches.llava_next.model.siglip import DROPPED_LAYERS, SiglipVisionEncoder
from tam_plugin.vision.gradients import with_zero_gradients
from tam_plugin.vision.upcycle import upcycle_vision_encoder

FRAMES_PER_CHUNK = 32
"""Frames that are encoded at once when no gradient is needed; bounds the memory of 120-frame videos."""


class TamVisionTower(nn.Module):
    """SigLIP whose MLPs are mixtures of experts.

    Modules are built here from the configuration alone, on whatever device the caller's context says (meta too);
    weights come from the checkpoint that holds the model, or from :mod:`.upgrade`.

    Args:
        config: ``config.vision_encoder`` has the fields of ``SiglipVisionConfig`` for the whole pretrained encoder;
            its last layer is left out, as the host does.

    Raises:
        ConfigError: ``config.vision_encoder`` is missing or no encoder can be built from it.
    """

    def __init__(self, config: TamConfig) -> None:
        super().__init__()
        self.config = siglip_config(config.vision_encoder)
        self.tam_config = config
        self.vision_tower_name = "tam"
        self.is_loaded = True
        self.vision_tower = SiglipVisionEncoder(self.config)
        upcycle_vision_encoder(self.vision_tower, config)

    def load_model(self, device_map: Any = None) -> None:
        """Nothing is left to load: the modules exist, and their weights belong to the model's checkpoint."""

    def forward(self, images: torch.Tensor | list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
        """Patch features before the final normalization, in the dtype of ``images``.

        Args:
            images: ``[B, 3, S, S]``, or a list of ``[3, S, S]``.

        Returns:
            ``[B, P, D]``, or a list of ``[1, P, D]``.
        """
        if isinstance(images, list):
            return [self._encode(image.unsqueeze(0)) for image in images]
        if torch.is_grad_enabled() or len(images) <= FRAMES_PER_CHUNK:
            return self._encode(images)
        return torch.cat([self._encode(chunk) for chunk in images.split(FRAMES_PER_CHUNK)])

    def _encode(self, images: torch.Tensor) -> torch.Tensor:
        features = self.vision_tower(images.to(device=self.device, dtype=self.dtype))
        if self.training:
            features = with_zero_gradients(features, self.vision_tower.vision_model.post_layernorm.parameters())
        return features.to(images.dtype)

    @property
    def _example(self) -> torch.Tensor:
        return self.vision_tower.vision_model.embeddings.patch_embedding.weight

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self._example.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._example.device

    @property
    def dummy_feature(self) -> torch.Tensor:
        """A tensor of zeros, ``[1, D]``, that stands in for missing features."""
        return torch.zeros(1, self.hidden_size, device=self.device, dtype=self.dtype)

    @property
    def hidden_size(self) -> int:
        """Width of the features, D."""
        return self.config.hidden_size

    @property
    def image_size(self) -> int:
        """Pixels per side, S."""
        return self.config.image_size

    @property
    def num_patches_per_side(self) -> int:
        """Patches per side of a frame."""
        return self.config.image_size // self.config.patch_size

    @property
    def num_patches(self) -> int:
        """Patches of a frame, P."""
        return self.num_patches_per_side**2

    @property
    def image_processor(self) -> Any:
        """The host's own SigLIP preprocessing for this size."""
        processor = self.__dict__.get("_image_processor")
        if processor is None:
            from llava.model.multimodal_encoder.siglip_encoder import SigLipImageProcessor

            side = self.image_size
            processor = SigLipImageProcessor(size=(side, side), crop_size={"height": side, "width": side})
            self.__dict__["_image_processor"] = processor
        return processor


_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
    "attention_dropout",
)


def encoder_fields(config: Any) -> dict[str, Any]:
    """What a checkpoint stores of an encoder: everything that shapes it, whatever the defaults of the class."""
    return {name: getattr(config, name) for name in _FIELDS}


def siglip_config(values: dict[str, Any] | None) -> Any:
    """``SiglipVisionConfig`` from a plain mapping.

    Raises:
        ConfigError: it is missing, or describes no encoder that the host could use.
    """
    from transformers import SiglipVisionConfig

    if values is None:
        raise ConfigError(
            "the configuration has no tam.vision_encoder: expected the fields of SiglipVisionConfig, which "
            "--vision_tower tam --vision_tower_pretrained FOLDER writes into a checkpoint"
        )
    where = "tam.vision_encoder"
    check_sizes(values, where)
    with reading_config(where):
        config = SiglipVisionConfig.from_dict(dict(values))
    check_encoder_fields(config, where)
    if not isinstance(config.num_hidden_layers, int) or config.num_hidden_layers <= DROPPED_LAYERS:
        raise ConfigError(
            f"tam.vision_encoder.num_hidden_layers = {config.num_hidden_layers!r}: expected at least "
            f"{DROPPED_LAYERS + 1}, since the last layer is left out"
        )
    return config
