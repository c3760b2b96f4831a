"""What a conversion writes, decided from names and shapes alone: mixture → dense."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tam_plugin.checkpoint.mapping import LINEARS, Change, check_float, copied, projector_names
from tam_plugin.checkpoint.source import Source
from tam_plugin.checkpoint.tensor_layout import TensorLayout
from tam_plugin.checkpoint.writing import Output, Region
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError

AVERAGE = "average"


@dataclass(frozen=True)
class DenseChoice:
    """How experts and projectors become dense.

    Attributes:
        expert: the expert that is kept; None averages them.
        stride: the stride whose projector is kept; None averages them.
    """

    expert: int | None
    stride: int | None

    @classmethod
    def parse(cls, experts: str, projector: str) -> DenseChoice:
        """From ``average`` or ``expert:N``, and ``average`` or ``stride:N``.

        Raises:
            InputError: neither.
        """
        return cls(_number(experts, "--dense", "expert"), _number(projector, "--projector", "stride"))


def to_dense(source: Source, layout: TensorLayout, tam: TamConfig, choice: DenseChoice) -> Change:
    """One expert, or the average of all, in place of each mixture; one projector in place of all.

    Raises:
        ConfigError: a mixture is incomplete.
        InputError: there is no such expert or stride.
    """
    removed: set[str] = set()
    added: list[Output] = []
    if tam.moe.enabled:
        for layer in range(layout.num_layers):
            start = layout.mlp(layer)
            removed.add(f"{start}gate.weight")
            added += _from_mixture(source, start, {n: f"{start}{n}." for n in LINEARS}, tam.moe.num_experts, choice)
            removed.update(f"{start}experts.{linear}.{kind}" for linear in LINEARS for kind in ("weight", "bias"))
    added += _projector(source, layout, tam, choice)
    if missing := sorted(name for name in removed if name not in source.holder):
        raise ConfigError(f"{layout.where} holds no {missing[0]}: the checkpoint is incomplete")
    return Change(frozenset(removed) | frozenset(projector_names(source, layout)), added)


def _from_mixture(
    source: Source, start: str, linears: dict[str, str], num_experts: int, choice: DenseChoice
) -> list[Output]:
    if choice.expert is not None and choice.expert >= num_experts:
        raise InputError(f"--dense expert:{choice.expert}: {start}experts has experts 0 to {num_experts - 1}")
    outputs = []
    for linear, prefix in linears.items():
        for kind in ("weight", "bias"):
            name = f"{start}experts.{linear}.{kind}"
            if name not in source.holder:
                raise ConfigError(f"{str(source.folder)!r} holds no {name}: the checkpoint is incomplete")
            entry, shard = source.entry(name), source.holder[name]
            check_float(entry, name, str(source.folder))
            if entry.shape[0] != num_experts:
                raise ConfigError(f"{name} holds {entry.shape[0]} experts, config.json names {num_experts}")
            one = replace(entry, shape=entry.shape[1:])
            chosen = range(num_experts) if choice.expert is None else [choice.expert]
            regions = tuple(Region(shard, name, e * one.nbytes, (e + 1) * one.nbytes) for e in chosen)
            outputs.append(Output(f"{prefix}{kind}", one, regions, mean=len(regions) > 1))
    return outputs


def _projector(source: Source, layout: TensorLayout, tam: TamConfig, choice: DenseChoice) -> list[Output]:
    config = tam.projector
    if config.gate == "soft":
        linears = {
            linear: f"{layout.projector}{name}." for linear, name in zip(LINEARS, layout.projector_linears, strict=True)
        }
        return _from_mixture(source, f"{layout.projector}soft.", linears, config.num_experts, choice)
    children = config.children
    if choice.stride is not None and children != ["shared"]:
        if choice.stride not in config.strides:
            raise InputError(
                f"--projector stride:{choice.stride}: this model has projectors for "
                f"{', '.join(map(str, config.strides))}; name one of them, or average"
            )
        children = [config.child(choice.stride)]
    starts = [f"{layout.projector}{child}." for child in children]
    outputs = []
    for name in projector_names(source, layout):
        if not name.startswith(starts[0]):
            continue
        rest = name.removeprefix(starts[0])
        names = [start + rest for start in starts]
        if missing := [other for other in names if other not in source.holder]:
            raise ConfigError(f"{layout.where} holds no {missing[0]}: the checkpoint is incomplete")
        output = copied(source, name, layout.projector + rest)
        if len(names) > 1:
            check_float(output.entry, name, layout.where)
            regions = tuple(Region.whole(source.holder[other], other) for other in names)
            output = replace(output, regions=regions, mean=True)
        outputs.append(output)
    if not outputs:
        raise ConfigError(f"{layout.where} holds no {starts[0]}*: the checkpoint is incomplete")
    return outputs


def _number(text: str, option: str, word: str) -> int | None:
    if text == AVERAGE:
        return None
    found = re.fullmatch(rf"{word}:(\d{{1,4}})", text, re.ASCII)
    if found is None:
        raise InputError(
            f"{option} {text!r}: expected {AVERAGE} or {word}:N, such as {word}:{2 if word == 'stride' else 0}"
        )
    return int(found[1])
