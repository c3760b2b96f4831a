"""The model and samples of the several-process tests, on transformers' host."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from tam_plugin import TamConfig
from tam_plugin.patches.onevision import VideoTurn, build_inputs, upgrade_dense
from tam_plugin.patches.onevision.tiny import demo_dense_model
from tests.ranks import kind_of

SIDE = 70


def start() -> None:
    """Nothing has to be prepared."""


@cache
def _tokenizer():
    return demo_dense_model(seed=1, image_size=SIDE, patch_size=14)[1]


def model():
    """A TAM model whose experts and projectors all differ."""
    dense, _ = demo_dense_model(seed=1, image_size=SIDE, patch_size=14)
    torch.manual_seed(3)
    # Weights of the router losses that show in the parameters.
    tam = upgrade_dense(dense, TamConfig.from_dict({"moe": {"balance_loss_weight": 0.1, "z_loss_weight": 0.05}}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in tam.named_parameters():
            if ".mlp." in name or "projector" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return tam


def batch(step: int, rank: int) -> dict[str, Any]:
    """One sample; a still image is a video of one frame at stride 1 here."""
    kind, stride = kind_of(step, rank)
    generator = torch.Generator().manual_seed(100 * step + rank)
    count, stride = (1, 1) if kind == "image" else (2 + rank % 2, stride)
    frames = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    seen = {} if kind == "text" else {"frames": frames, "pool_stride": stride}
    turn = VideoTurn(question=f"What is {step}?", answer=f"It is {rank}.", **seen)
    return build_inputs([turn], _tokenizer(), model_config())


@cache
def model_config():
    """The configuration of :func:`model`."""
    return model().config


def logged(model: Any) -> dict[str, float]:
    """This host has no log of its own."""
    return {}
