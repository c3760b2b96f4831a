"""Co-upcycling: the MLP of every SigLIP encoder layer becomes a mixture of its own copies (Sec. 3.3)."""

from __future__ import annotations

import operator
from typing import Any

from torch import nn

from tam_plugin.config import MoeConfig, TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.vision.moe_mlp import MoeMlp

# Where the layers are: in transformers 5, in 4.x and the host's copy, in an encoder alone, in a host's tower.
_LAYER_PATHS = (
    "encoder.layers",
    "vision_model.encoder.layers",
    "layers",
    "vision_tower.encoder.layers",
    "vision_tower.vision_model.encoder.layers",
)


def encoder_layers(siglip_vision_model: nn.Module) -> nn.ModuleList:
    """The encoder layers of a SigLIP vision model, its transformer, its encoder or a tower around it.

    Raises:
        ConfigError: none of the known places holds layers.
    """
    for path in _LAYER_PATHS:
        try:
            layers = operator.attrgetter(path)(siglip_vision_model)
        except AttributeError:
            continue
        if isinstance(layers, nn.ModuleList) and len(layers):
            return layers
    raise ConfigError(
        f"{type(siglip_vision_model).__name__} holds no encoder layers at any of {', '.join(_LAYER_PATHS)}: "
        "expected a SigLIP vision model (transformers' SiglipVisionModel or the host's copy of it)"
    )


def upcycle_vision_encoder(siglip_vision_model: nn.Module, config: TamConfig) -> None:
    """Replace each encoder layer's ``mlp`` in place by experts that start as its copies, behind a random gate.

    The output stays equal to the dense model's, since identical experts are mixed with weights that sum to 1.
    Dtype, device (meta too) and ``requires_grad`` follow the dense weights. The pooling head stays dense.
    With ``config.moe.enabled`` false nothing is done, nor if the model has this very mixture already.

    Args:
        siglip_vision_model: transformers' ``SiglipVisionModel``, the host's copy, or a tower around one.
        config: ``config.moe`` says how many experts, how they are routed and computed.

    Raises:
        ConfigError: not a SigLIP, upcycled before with another mixture, or a backend that cannot run here.
    """
    moe = config.moe
    if not moe.enabled:
        return
    layers = encoder_layers(siglip_vision_model)
    mlps: list[Any] = [getattr(layer, "mlp", None) for layer in layers]
    for number, mlp in enumerate(mlps):
        _check_mlp(mlp, number, moe, type(siglip_vision_model).__name__)
    for layer, mlp in zip(layers, mlps, strict=True):
        if isinstance(mlp, MoeMlp):
            continue
        mixture = MoeMlp(mlp.fc1, mlp.activation_fn, mlp.fc2, moe)
        if not mlp.fc1.weight.is_meta:
            _ = mixture.experts.backend_in_use  # a backend that cannot run is refused before anything changes
        mixture.train(mlp.training)
        layer.mlp = mixture


def _check_mlp(mlp: nn.Module | None, number: int, moe: MoeConfig, owner: str) -> None:
    if isinstance(mlp, MoeMlp):
        if mlp.config != moe:
            raise ConfigError(
                f"{owner} layer {number} is a mixture already, {_summary(mlp.config)}; asked for {_summary(moe)}: "
                "upcycle the dense model instead"
            )
        return
    is_siglip_mlp = all(isinstance(getattr(mlp, name, None), nn.Linear) for name in ("fc1", "fc2"))
    if not is_siglip_mlp or not callable(getattr(mlp, "activation_fn", None)):
        raise ConfigError(
            f"{owner} layer {number} has mlp = {type(mlp).__name__}: expected SigLIP's MLP with linear layers fc1 and "
            "fc2 and an activation_fn"
        )


def _summary(moe: MoeConfig) -> str:
    return f"{moe.router_mode} {moe.top_k} of {moe.num_experts} experts (backend {moe.backend})"
