"""Visual parameters that no batch gives a gradient; data parallelism waits for every one of them."""

from __future__ import annotations

from typing import Any

import torch

from tam_plugin.vision.upcycle import encoder_layers

_BEHIND = ("post_layernorm", "head")
"""Parts of a SigLIP behind the encoder, which no LLaVA uses."""


def never_used(model: Any) -> list[torch.Tensor]:
    """Parameters behind the layer whose features the model takes.

    Args:
        model: a ``LlavaOnevisionModel`` with its tower.
    """
    named = model.vision_tower.named_parameters()
    behind = [p for name, p in named if any(part in name.split(".") for part in _BEHIND)]
    layers, chosen = encoder_layers(model.vision_tower), model.config.vision_feature_layer
    # hidden_states[0] is the embedding, so index n is what n layers made of it.
    used = max(n % (len(layers) + 1) for n in ([chosen] if isinstance(chosen, int) else chosen))
    return [*behind, *(p for layer in layers[used:] for p in layer.parameters())]
