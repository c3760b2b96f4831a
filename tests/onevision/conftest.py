"""Tiny LLaVA-OneVision models with seeded random weights: a 5 × 5 patch grid, two layers everywhere."""

from __future__ import annotations

import copy

import pytest
import torch

from tam_plugin import TamConfig
from tam_plugin.patches.onevision import upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model

IMAGE_SIZE = 70
GRID = 5


@pytest.fixture(scope="session")
def dense_and_tokenizer():
    """The unpatched host's own model and its tokenizer."""
    return demo_dense_model(seed=1, image_size=IMAGE_SIZE, patch_size=14)


@pytest.fixture
def make_tam(dense_and_tokenizer):
    """A fresh TAM model upgraded from the dense one; keyword arguments are sections of TamConfig.

    ``diverge=True`` moves every expert, gate and projector apart, as training would.
    """

    def make(diverge=False, **sections):
        model = upgrade_dense(copy.deepcopy(dense_and_tokenizer[0]), TamConfig.from_dict(sections))
        if diverge:
            generator = torch.Generator().manual_seed(7)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if ".mlp." in name or "projector" in name:
                        parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
        return model

    return make


@pytest.fixture
def frames():
    """``frames(n, seed)``: encoder input ``[n, 3, 70, 70]``."""
    return lambda n, seed=0: torch.randn(n, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(seed))
