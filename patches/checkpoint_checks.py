"""What a checkpoint holds, by names and shapes alone, compared with what its configuration says."""

from __future__ import annotations

from tam_plugin.config import MoeConfig
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


def check_names(shapes: Shapes, expected: Shapes, where: str) -> None:
    """Refuse weights that lack a tensor or hold it in another shape.

    Raises:
        ConfigError: by name.
    """
    for name, shape in expected.items():
        if name not in shapes:
            raise ConfigError(f"{where} holds no {name}: the checkpoint is incomplete")
        if shapes[name] != shape:
            raise ConfigError(f"{where}: {name} has shape {list(shapes[name])}, config.json makes it {list(shape)}")
