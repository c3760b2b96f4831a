"""What a checkpoint holds, by names and shapes alone, compared with what its configuration says."""

from __future__ import annotations

from pathlib import Path

from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError

Shapes = dict[str, tuple[int, ...]]

_EXPERTS = ".mlp.experts.fc1.weight"
_GATE = ".mlp.gate.weight"


def tensor_shapes(directory: str | Path) -> Shapes:
    """Shapes by name of all tensors in the weight files of ``directory``, from their headers.

    ``model*.safetensors`` and ``adapter``-free ``*.safetensors`` are read by header, ``pytorch_model*.bin`` on the
    meta device; no weight is read into memory.
    """
    from safetensors import safe_open

    shapes: Shapes = {}
    for file in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (not a dict)
                shapes[name] = tuple(tensors.get_slice(name).get_shape())
    if shapes:
        return shapes
    for file in sorted(Path(directory).glob("pytorch_model*.bin")):
        import torch

        tensors = torch.load(file, map_location="meta", weights_only=True)
        shapes.update((name, tuple(tensor.shape)) for name, tensor in tensors.items())
    return shapes


def check_experts(shapes: Shapes, moe: MoeConfig, where: str) -> None:
    """Compare the experts that a configuration names with those that the weights hold.

    Args:
        shapes: what the weights hold (:func:`tensor_shapes`); nothing is said of an empty mapping.
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
