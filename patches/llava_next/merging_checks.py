"""Whether a run's weights and its base make a whole TAM model, by names and shapes."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from tam_plugin.checkpoint.plan import projector_children
from tam_plugin.checkpoint.shards import Shard
from tam_plugin.checkpoint.source import Source
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.patches.checkpoint_checks import Shapes, check_experts, check_names
from tam_plugin.patches.llava_next.checkpoint_layout import PROJECTOR, TOWER
from tam_plugin.patches.llava_next.partial_saving import is_visual
from tam_plugin.patches.llava_next.pretrained import shapes_of
from tam_plugin.patches.llava_next.tower import TamVisionTower
from tam_plugin.vision.projector import ResolutionProjectors

NEWLINE = "model.image_newline"
LAYERS = "model.layers."
SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
)
_MLP = re.compile(r"mlp(\d+)x_gelu")


def check_base(base: Source, values: dict[str, Any], run: str) -> None:
    """Refuse a base whose language model is incomplete, or of other sizes than the run's.

    Args:
        base: the base.
        values: config.json of the run.
        run: the run's folder, for messages.

    Raises:
        ConfigError: by field or name.
    """
    where = f"--base {str(base.folder)!r}"
    for field in SIZES:
        stored, trained = base.config.get(field), values.get(field)
        if None not in (stored, trained) and stored != trained:
            raise ConfigError(
                f"{where} has {field} = {stored!r}, the run in {run!r} {trained!r}: name the checkpoint that it "
                "started from"
            )
    rows: Any = values.get("vocab_size")  # one that is missing fits no tensor
    wide: Any = values.get("hidden_size")
    expected: Shapes = {"model.norm.weight": (wide,), "model.embed_tokens.weight": (rows, wide)}
    if not values.get("tie_word_embeddings"):
        expected["lm_head.weight"] = (rows, wide)
    # Layers of these families are alike, so that the first says what the others hold.
    first = {name: shape for name, shape in base.shapes.items() if name.startswith(f"{LAYERS}0.")}
    for number in range(values.get("num_hidden_layers") or 0):
        start = f"{LAYERS}{number}."
        expected[f"{start}input_layernorm.weight"] = (wide,)
        if not any(".experts." in name for name in first):
            expected.update((name.replace(f"{LAYERS}0.", start, 1), shape) for name, shape in first.items())
    check_names(base.shapes, expected, where)


def visual_shapes(tam: TamConfig, values: dict[str, Any], held: Shapes, where: str) -> Shapes:
    """Shapes of the tower, the projectors and the newline that a configuration makes, by their names in the model.

    Args:
        tam: the TAM configuration.
        values: config.json.
        held: shapes of the run's weights and of its base's; projectors that are neither linear nor an MLP are to be
            all like the first.
        where: the run, for messages.

    Raises:
        ConfigError: no tower or projector can be built from it.
    """
    with torch.device("meta"):
        tower = TamVisionTower(tam)
        dense = _dense_projector(values, tower.hidden_size)
        projectors = None if dense is None else ResolutionProjectors(dense, tam.projector, tam.moe)
    shapes = {TOWER + name: shape for name, shape in shapes_of(tower.state_dict()).items()}
    if projectors is not None:
        shapes.update((PROJECTOR + name, shape) for name, shape in shapes_of(projectors.state_dict()).items())
    else:
        starts = [f"{PROJECTOR}{child}." for child in projector_children(tam.projector)]
        first = {name: shape for name, shape in held.items() if name.startswith(starts[0])}
        if not first:
            raise ConfigError(f"{where} holds no {starts[0]}*: the checkpoint is incomplete")
        shapes.update(
            (start + name.removeprefix(starts[0]), shape) for start in starts for name, shape in first.items()
        )
    if "unpad" in (values.get("mm_patch_merge_type") or ""):
        shapes[NEWLINE] = (values["hidden_size"],)
    return shapes


def check_merged(base: Source, shard: Shard, values: dict[str, Any], tam: TamConfig) -> frozenset[str]:
    """Compare the weights beside an adapter, over those of the base, with what the configuration makes.

    Args:
        base: the base.
        shard: the file beside the adapter.
        values: config.json of the run.
        tam: its TAM configuration.

    Returns:
        Names of the base's tensors that the model does not have: a dense tower's and its projector's.

    Raises:
        ConfigError: a tensor is missing, of another shape, or none of the model's.
    """
    own, of_base = {name: entry.shape for name, entry in shard.tensors.items()}, base.shapes
    where = f"{str(shard.path)!r} over {str(base.folder)!r}"
    visual = visual_shapes(tam, values, of_base | own, where)
    dropped = frozenset(name for name in of_base if name.startswith((TOWER, PROJECTOR)) and name not in visual)
    for name, shape in own.items():
        known = name in visual if name.startswith((TOWER, PROJECTOR)) else name in of_base or is_visual(name)
        if not known:
            raise ConfigError(
                f"{str(shard.path)!r} holds {name}, which the model that config.json makes over {str(base.folder)!r} "
                "does not have"
            )
        if name not in visual and of_base.get(name, shape) != shape:
            raise ConfigError(f"{where}: {name} has shape {list(shape)}, that of the base {list(of_base[name])}")
    held = {name: shape for name, shape in of_base.items() if name not in dropped} | own
    check_experts({name: shape for name, shape in held.items() if name.startswith(TOWER)}, tam.moe, where)
    check_names(held, visual, where)
    return dropped


def _dense_projector(values: dict[str, Any], vision_size: int) -> nn.Module | None:
    """The projector that the host builds, for the kinds that are plain stacks of linear layers."""
    kind, size = values.get("mm_projector_type") or "linear", values["hidden_size"]
    if kind == "linear":
        return nn.Linear(vision_size, size)
    found = _MLP.fullmatch(kind)
    if found is None:
        return None
    layers: list[nn.Module] = [nn.Linear(vision_size, size)]
    for _ in range(1, int(found[1])):
        layers += [nn.GELU(), nn.Linear(size, size)]
    return nn.Sequential(*layers)
