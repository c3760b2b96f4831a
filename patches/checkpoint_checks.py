"""What a checkpoint holds, by names and shapes alone, compared with what its configuration says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tam_plugin.bounds import SIZES, is_whole
from tam_plugin.config import MoeConfig, short
from tam_plugin.errors import ConfigError
from tam_plugin.headers import Shapes

_EXPERTS = ".mlp.experts.fc1.weight"
_GATE = ".mlp.gate.weight"


def check_experts(shapes: Shapes, moe: MoeConfig, where: str) -> None:
    """Compare the experts that a configuration names with those that the weights hold.

    Args:
        shapes: what the weights hold (:func:`tam_plugin.model_folder.weight_shapes`); nothing is said of an empty
            mapping.
        moe: what the configuration says.
        where: the checkpoint, for the message.

    Raises:
        ConfigError: another number of experts, or experts without a gate.
    """
    named = moe.num_experts if moe.enabled else 0
    experts = {name: shape for name, shape in shapes.items() if name.endswith(_EXPERTS)}
    for name, shape in experts.items():
        if shape[0] != named:
            raise ConfigError(
                f"{where}: config.json names {named} experts (tam.moe.num_experts), the weights hold {shape[0]} "
                f"({name}); correct the configuration or take the checkpoint that belongs to it"
            )
        gate = name.removesuffix(_EXPERTS) + _GATE
        found = shapes.get(gate)
        if found is None or found[0] != named:
            held = "none" if found is None else f"one for {found[0]} experts"
            raise ConfigError(f"{where}: expected {gate} with {named} rows, found {held}; the checkpoint is incomplete")


def check_encoder_fields(config: Any, where: str) -> None:
    """Refuse a ``SiglipVisionConfig`` of which no encoder can be built.

    Raises:
        ConfigError: by field, with its value.
    """
    from transformers.activations import ACT2FN

    for name in _ENCODER_SIZES:
        if not is_whole(getattr(config, name), *SIZES[name]):
            raise ConfigError(f"{where}.{name} = {short(getattr(config, name))}: expected a whole number")
    if not isinstance(config.hidden_act, str) or config.hidden_act not in ACT2FN:
        raise ConfigError(f"{where}.hidden_act = {short(config.hidden_act)}: expected one of transformers' activations")
    for name in ("layer_norm_eps", "attention_dropout"):
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
            raise ConfigError(f"{where}.{name} = {short(value)}: expected a number from 0 to under 1")
    if config.patch_size > config.image_size:
        raise ConfigError(
            f"{where}.patch_size = {config.patch_size}: expected at most image_size = {config.image_size}"
        )
    if config.hidden_size % config.num_attention_heads:
        raise ConfigError(
            f"{where}.hidden_size = {config.hidden_size!r}: expected a multiple of num_attention_heads = "
            f"{config.num_attention_heads!r}"
        )


_ENCODER_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
)


def check_names(shapes: Shapes, expected: Shapes, where: str) -> None:
    """Refuse weights that lack a tensor or hold it in another shape.

    Raises:
        ConfigError: by name.
    """
    for name, shape in expected.items():
        if name not in shapes:
            raise ConfigError(f"{where} holds no {name}: the checkpoint is incomplete")
        if shapes[name] != shape:
            raise ConfigError(f"{where}: {name} has shape {list(shapes[name])}, but config.json says {list(shape)}")


def check_language(shapes: Shapes, values: Mapping[str, Any], where: str) -> None:
    """Refuse a language model that config.json makes larger than the weights are.

    Args:
        shapes: what the weights hold, by the names of the Llama family (``model.layers.0.…``).
        values: config.json.
        where: the checkpoint, for the message.

    Raises:
        ConfigError: with both numbers.
    """
    layers = {int(found[1]) for name in shapes if (found := _LAYER.match(name))}
    held: dict[str, int] = {"num_hidden_layers": max(layers, default=-1) + 1}
    if (embedding := shapes.get("model.embed_tokens.weight")) is not None and len(embedding) == 2:
        held["vocab_size"], held["hidden_size"] = embedding
    if (gate := shapes.get("model.layers.0.mlp.gate_proj.weight")) is not None and len(gate) == 2:
        held["intermediate_size"] = gate[0]
    for name, count in held.items():
        named = values.get(name)
        if named is not None and named > count:
            raise ConfigError(
                f"{where}: config.json names {name} = {named}, the weights hold {count}: they do not belong together"
            )


_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.")
