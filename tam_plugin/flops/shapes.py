"""Sizes that decide what encoder and projectors cost, read from the fields of a configuration; and the whole model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.config import ProjectorConfig, TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.flops.language import LanguageShape, whole

PRESET_FILE = Path(__file__).with_name("presets.yaml")
"""Published sizes of LLaVA-Video models, by name."""


@dataclass(frozen=True, kw_only=True)
class EncoderShape:
    """A SigLIP encoder, dense or a mixture.

    Attributes:
        hidden_size: D.
        intermediate_size: I of the MLP, or of each expert.
        num_layers: layers that run, L.
        grid: patches per side; P = grid².
        patch_size: pixels per side of a patch.
        num_channels: channels of a pixel.
        num_experts: E; 1 if dense.
        top_k: experts per patch, K.
        routed: whether each layer has a router (a dense encoder has none).
        pooling_head: whether SigLIP's attention pooling runs on top, although nothing reads it.
    """

    hidden_size: int
    intermediate_size: int
    num_layers: int
    grid: int
    patch_size: int
    num_channels: int = 3
    num_experts: int = 1
    top_k: int = 1
    routed: bool = False
    pooling_head: bool = False

    @property
    def patches(self) -> int:
        """Patches per frame, P."""
        return self.grid**2

    @classmethod
    def of(
        cls,
        vision: Mapping[str, Any],
        tam: TamConfig | None,
        *,
        num_layers: int,
        where: str,
        pooling_head: bool = False,
    ) -> EncoderShape:
        """From the fields of a ``SiglipVisionConfig``.

        Args:
            vision: the fields.
            tam: experts; None for a dense encoder.
            num_layers: layers that run (a host may drop the last one).
            where: the configuration, for messages.
            pooling_head: see the class; hosts differ.

        Raises:
            ConfigError: a field is missing or no size.
        """
        image, patch = whole(vision, "image_size", where), whole(vision, "patch_size", where)
        if patch > image:
            raise ConfigError(f"{where}: patch_size = {patch} exceeds image_size = {image}")
        moe = tam.moe if tam is not None and tam.moe.enabled else None
        return cls(
            hidden_size=whole(vision, "hidden_size", where),
            intermediate_size=whole(vision, "intermediate_size", where),
            num_layers=num_layers,
            grid=image // patch,
            patch_size=patch,
            num_channels=vision.get("num_channels") or 3,
            num_experts=moe.num_experts if moe else 1,
            top_k=moe.top_k if moe else 1,
            routed=moe is not None,
            pooling_head=pooling_head,
        )


@dataclass(frozen=True, kw_only=True)
class ProjectorShape:
    """The projectors between encoder and language model.

    Attributes:
        layers: input and output width of each linear layer of one projector.
        copies: projectors that exist, one taken by a frame; 1 for a mixture.
        num_experts: experts of a ``soft`` gate; 1 without one.
        top_k: experts that a token takes.
        routed: whether a token is routed (``soft`` gate).
        pool_first: pooling before projection (``before_projector``).
        bias: whether the layers have biases.
    """

    layers: tuple[tuple[int, int], ...]
    copies: int = 1
    num_experts: int = 1
    top_k: int = 1
    routed: bool = False
    pool_first: bool = False
    bias: bool = True

    @property
    def weights(self) -> int:
        """Weights of one projector, without biases."""
        return sum(wide * out for wide, out in self.layers)

    @classmethod
    def of(
        cls, layers: tuple[tuple[int, int], ...], config: ProjectorConfig | None, *, bias: bool = True
    ) -> ProjectorShape:
        """Projectors of these layers as a configuration multiplies them; None for the one of a dense model."""
        if config is None:
            return cls(layers=layers, bias=bias)
        first = config.pool_order == "before_projector"
        if config.gate == "soft":
            # A mixture's layers have biases, zero where the dense projector had none.
            return cls(layers=layers, num_experts=config.num_experts, top_k=config.top_k, routed=True, pool_first=first)
        copies = 1 if config.gate == "single" else len(config.strides)
        return cls(layers=layers, copies=copies, pool_first=first, bias=bias)


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A whole model.

    Attributes:
        encoder: vision encoder.
        projector: projectors.
        language: language model.
        pool_mode: see :class:`~tam_plugin.config.ProjectorConfig`.
        newline: whether there is a learned newline token.
    """

    encoder: EncoderShape
    projector: ProjectorShape
    language: LanguageShape
    pool_mode: str = "bilinear"
    newline: bool = True

    def dense(self) -> ModelShape:
        """The model that this one was upgraded from: one expert, one projector, pooled after it as the hosts do."""
        return dataclasses.replace(
            self,
            encoder=dataclasses.replace(self.encoder, num_experts=1, top_k=1, routed=False),
            projector=ProjectorShape(layers=self.projector.layers, bias=self.projector.bias),
        )

    def with_experts(self, num_experts: int, top_k: int) -> ModelShape:
        """This model with ``top_k`` of ``num_experts`` in every encoder layer.

        Raises:
            ConfigError: that many cannot be taken.
        """
        if not 1 <= top_k <= num_experts:
            raise ConfigError(f"top_k = {top_k!r} of {num_experts!r} experts: expected 1 <= top_k <= num_experts")
        encoder = dataclasses.replace(self.encoder, num_experts=num_experts, top_k=top_k, routed=True)
        return dataclasses.replace(self, encoder=encoder)
