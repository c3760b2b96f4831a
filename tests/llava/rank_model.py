"""The model and samples of the several-process tests, on LLaVA-NeXT."""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.llava import tiny
from tests.llava.budget_model import batch as inputs_of
from tests.llava.budget_model import pixels, row, tam_model
from tests.ranks import kind_of


def start() -> None:
    """Make the host importable, with the plugin's patches."""
    from tam_plugin.patches import activation

    sys.path.append(str(tiny.find_host()))
    activation.start()


def model():
    """A TAM model whose weights are its name's; the router losses weigh enough to show in the parameters."""
    return tam_model(moe={"balance_loss_weight": 0.1, "z_loss_weight": 0.05})


def batch(step: int, rank: int) -> dict[str, Any]:
    """One sample."""
    from tam_plugin.patches.llava_next import video

    kind, stride = kind_of(step, rank)
    seed = 100 * step + rank
    ids = row(12, image=kind != "text", seed=seed)
    inputs = inputs_of([ids])
    images = {
        "text": (torch.zeros(1, 3, 98, 98), "text"),
        "image": (pixels(1, seed), "image"),
        "video": (pixels(2 + rank % 2, seed), video(stride)),
    }
    image, modality = images[kind]
    return {**inputs, "images": [image], "modalities": [modality], "image_sizes": [(98, 98)]}


def logged(model: Any) -> dict[str, float]:
    """What the training log would say of all steps."""
    from tam_plugin.patches.llava_next.model.loss import meter_of

    meter = meter_of(model)
    assert meter is not None
    return meter.take(torch.device("cpu"))
