"""Settings of a row on a model: its configuration, the modules that route, and the length of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tam_plugin.config import MoeConfig, TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.eval.ablations.rows import Ablation
from tam_plugin.storage import values_sha256
from tam_plugin.taxonomy import AnyTask

if TYPE_CHECKING:
    from torch import nn

_BY_STRIDE = ("resolution", "random", "swapped")
"""Gates over one projector per stride: a checkpoint of one serves them all."""


def configured(ablation: Ablation, tam: TamConfig | None) -> TamConfig | None:
    """A checkpoint's configuration with the settings of a row.

    Args:
        ablation: the row.
        tam: what the checkpoint has; None for a dense one of a host, which has neither experts nor projectors.

    Raises:
        ConfigError: its weights are not those of the row: other experts or other projectors.
    """
    if tam is None:
        dense = TamConfig.from_dict({"moe": {"enabled": False}, "projector": {"gate": "single"}})
        _check_alike(ablation, ablation.tam(dense), dense)
        return None
    changed = ablation.tam(tam)
    _check_alike(ablation, changed, tam)
    return changed


def _check_alike(ablation: Ablation, wanted: TamConfig, has: TamConfig) -> None:
    pairs = ((_encoder(wanted.moe), _encoder(has.moe)), (_projectors(wanted), _projectors(has)))
    for needed, found in pairs:
        if needed != found:
            raise ConfigError(
                f"ablation {ablation.name!r} ({ablation.table}: {ablation.row}) needs {needed}; this checkpoint has "
                f"{found}: take one that was trained so, or make it by `tam upcycle --config` from the dense one"
            )


def _encoder(moe: MoeConfig) -> str:
    return f"an encoder with {moe.num_experts} experts" if moe.enabled else "an encoder without experts"


def _projectors(tam: TamConfig) -> str:
    projector = tam.projector
    if projector.gate in _BY_STRIDE:
        return "one projector per stride"
    return (
        "a single projector" if projector.gate == "single" else f"a soft mixture of {projector.num_experts} projectors"
    )


def apply_to_model(ablation: Ablation, model: nn.Module) -> None:
    """Let a loaded model of either host compute as the row says; its weights stay.

    Raises:
        ConfigError: see :func:`configured`.
    """
    from tam_plugin.vision import MoeMlp, ResolutionProjectors, moe_layers

    config: Any = model.config
    tam = getattr(config, "tam", None)
    changed = configured(ablation, TamConfig.from_dict(tam) if isinstance(tam, dict) else None)
    if changed is None:
        return
    of_projectors: set[MoeMlp] = set()
    for module in model.modules():
        if isinstance(module, ResolutionProjectors):
            module.config = changed.projector
            of_projectors.update(moe_layers(module))
            for layer in moe_layers(module):
                _set(layer, dataclasses.replace(layer.config, top_k=changed.projector.top_k))
    for layer in moe_layers(model):
        if layer not in of_projectors:
            _set(layer, changed.moe)
    config.tam = changed.to_dict()


def _set(layer: Any, moe: MoeConfig) -> None:
    layer.config = layer.gate.config = moe


@contextmanager
def controlled(
    ablation: Ablation | None,
    model: nn.Module,
    tasks: Sequence[AnyTask | None],
    frames: Sequence[int],
    seed: Any,
) -> Iterator[None]:
    """For the length of a batch: its tasks where experts go by them, its own random numbers where a row draws.

    Args:
        ablation: the row; None for a checkpoint as it is, whose experts may go by task type too.
        model: the model.
        tasks: task type that decided, of each video.
        frames: frames of each video.
        seed: plain values that the draws depend on, and on nothing else.
    """
    import torch

    from tam_plugin.vision import route_by_task

    draws = ablation is not None and ablation.draws
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=draws):
        if draws:
            torch.manual_seed(int(values_sha256(seed)[:15], 16))
        with route_by_task(model, tasks, frames):
            yield
