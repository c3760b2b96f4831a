"""What a conversion writes, decided from names and shapes alone: dense → mixture.

The gates are those that the upgrade in memory makes after ``torch.manual_seed(seed)``: the same class draws them, in
the same order (encoder layers first, then a soft projector), in the dtype of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tam_plugin.checkpoint.shards import Entry, torch_dtype
from tam_plugin.checkpoint.source import Source
from tam_plugin.checkpoint.tensor_layout import TensorLayout
from tam_plugin.checkpoint.writing import Output, Region
from tam_plugin.config import MoeConfig, TamConfig
from tam_plugin.errors import ConfigError

LINEARS = ("fc1", "fc2")


@dataclass(frozen=True)
class Change:
    """Tensors that disappear, and those that take their place."""

    removed: frozenset[str]
    added: list[Output]

    def shapes(self, source: Source) -> dict[str, tuple[int, ...]]:
        """Shapes of the result, by name."""
        kept = {name: shape for name, shape in source.shapes.items() if name not in self.removed}
        return {**kept, **{output.name: output.entry.shape for output in self.added}}


def to_mixture(source: Source, layout: TensorLayout, tam: TamConfig, seed: int) -> Change:
    """Experts as stacked copies behind random gates, and a projector per stride.

    Raises:
        ConfigError: the encoder or the projector is not what the configuration says, or quantized.
    """
    import torch

    removed: set[str] = set()
    added: list[Output] = []
    check_encoder(source, layout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if tam.moe.enabled:
            for layer in range(layout.num_layers):
                start = layout.mlp(layer)
                linears = {name: f"{start}{name}." for name in LINEARS}
                added += _mixture(source, linears, start, tam.moe, layout.where)
                removed.update(f"{prefix}{kind}" for prefix in linears.values() for kind in ("weight", "bias"))
        projector = projector_names(source, layout)
        if tam.projector.gate == "soft":
            added += _soft_projector(source, layout, tam)
        else:
            added += [
                copied(source, name, f"{layout.projector}{child}.{name.removeprefix(layout.projector)}")
                for child in tam.projector.children
                for name in projector
            ]
    return Change(frozenset(removed).intersection(source.holder) | frozenset(projector), added)


def check_encoder(source: Source, layout: TensorLayout) -> None:
    """Refuse an encoder that lacks the MLP of a layer, or has it in another shape.

    Raises:
        ConfigError: by name.
    """
    wide, inner = layout.vision["hidden_size"], layout.vision["intermediate_size"]
    expected = {"fc1.weight": (inner, wide), "fc1.bias": (inner,), "fc2.weight": (wide, inner), "fc2.bias": (wide,)}
    for layer in range(layout.num_layers):
        for name, shape in expected.items():
            full = layout.mlp(layer) + name
            if full not in source.holder:
                raise ConfigError(
                    f"{layout.where} holds no {full}: the SigLIP encoder's weights are not all in this checkpoint"
                )
            if source.entry(full).shape != shape:
                raise ConfigError(
                    f"{layout.where}: {full} has shape {list(source.entry(full).shape)}, but its configuration says "
                    f"{list(shape)}"
                )
    beyond = layout.mlp(layout.num_layers)
    if any(name.startswith(beyond) for name in source.holder):
        raise ConfigError(f"{layout.where} holds {beyond}*: its configuration has {layout.num_layers} encoder layers")


def projector_names(source: Source, layout: TensorLayout) -> list[str]:
    """The projector's tensors, in the order of their names.

    Raises:
        ConfigError: there are none.
    """
    names = sorted(name for name in source.holder if name.startswith(layout.projector))
    if not names:
        raise ConfigError(f"{layout.where} holds no {layout.projector}*: the projector is not in this checkpoint")
    return names


def copied(source: Source, name: str, new_name: str) -> Output:
    """A tensor under another name."""
    return Output(new_name, source.entry(name), (Region.whole(source.holder[name], name),))


def check_float(entry: Entry, name: str, where: str) -> None:
    """Refuse what no layer computes in.

    Raises:
        ConfigError: the tensor is quantized.
    """
    if torch_dtype(entry.dtype) is None:
        raise ConfigError(
            f"{where}: {name} is {entry.dtype}; expected F32, F16 or BF16: take the checkpoint unquantized"
        )


def _mixture(source: Source, linears: dict[str, str], start: str, moe: MoeConfig, where: str) -> list[Output]:
    """Outputs of a ``MoeMlp`` under ``start`` from two dense layers, named by the starts of their names."""
    from tam_plugin.vision.router import Router

    first = source.entry(f"{linears['fc1']}weight")
    check_float(first, f"{linears['fc1']}weight", where)
    gate = Router(first.shape[1], moe, dtype=torch_dtype(first.dtype)).weight.detach()
    outputs = [
        Output(f"{start}gate.weight", Entry(first.dtype, tuple(gate.shape)), data=_bytes(gate)),
    ]
    experts = moe.num_experts
    for linear, prefix in linears.items():
        for kind in ("weight", "bias"):
            name, new_name = f"{prefix}{kind}", f"{start}experts.{linear}.{kind}"
            if name in source.holder:
                entry = source.entry(name)
                regions = (Region.whole(source.holder[name], name),) * experts
                outputs.append(Output(new_name, replace(entry, shape=(experts, *entry.shape)), regions))
            else:  # a projector without biases: the mixture's are zero
                weight = source.entry(f"{prefix}weight")
                entry = Entry(weight.dtype, (experts, weight.shape[0]))
                outputs.append(Output(new_name, entry, data=bytes(entry.nbytes)))
    return outputs


def _soft_projector(source: Source, layout: TensorLayout, tam: TamConfig) -> list[Output]:
    names, wanted = projector_names(source, layout), layout.projector_linears
    held = {name.removeprefix(layout.projector).rpartition(".")[0] for name in names}
    if held != set(wanted) or len(wanted) != len(LINEARS):
        raise ConfigError(
            f"ProjectorConfig.gate = 'soft': the projector of {layout.where} holds {', '.join(sorted(held))}; expected "
            f"two linear layers, {' and '.join(wanted)}"
        )
    moe, config = tam.moe, tam.projector
    mixture = replace(moe, enabled=True, num_experts=config.num_experts, top_k=config.top_k)
    linears = {linear: f"{layout.projector}{name}." for linear, name in zip(LINEARS, wanted, strict=True)}
    return _mixture(source, linears, f"{layout.projector}soft.", mixture, layout.where)


def _bytes(tensor) -> bytes:
    import torch

    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
