"""Tiny SigLIP models with fixed weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from tam_plugin import TamConfig, upcycle_vision_encoder


def build_siglip(**changes) -> SiglipVisionModel:
    """A random SigLIP with a 3x3 grid, without the pooling head; ``changes`` go into its config."""
    sizes = {"hidden_size": 32, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = SiglipVisionConfig(**{**sizes, "image_size": 12, "patch_size": 4, **changes})
    config.vision_use_head = False
    torch.manual_seed(0)
    return SiglipVisionModel(config).eval()


def upcycled(dense: nn.Module, **moe) -> nn.Module:
    """An upcycled copy of ``dense`` with fixed gates."""
    model = copy.deepcopy(dense)
    torch.manual_seed(1)
    upcycle_vision_encoder(model, TamConfig.from_dict({"moe": moe}))
    return model


def perturb(module: nn.Module, scale: float = 0.1) -> None:
    """Make copies differ from each other, so that a wrong choice of expert or projector shows."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def gradients(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all gradients, by name; a missing one is an error of the test's subject."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}


@pytest.fixture
def siglip() -> Callable[..., SiglipVisionModel]:
    """:func:`build_siglip`."""
    return build_siglip
