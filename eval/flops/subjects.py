"""Whose operations are counted: a preset of published sizes, or the configuration of a checkpoint."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from tam_plugin.bounds import reading_config
from tam_plugin.budget.stored import policy_to_store
from tam_plugin.checkpoint.figures import model_shape
from tam_plugin.checkpoint.source import CONFIG, read_json
from tam_plugin.checkpoint.tensor_layout import TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_yaml
from tam_plugin.flops import ModelShape
from tam_plugin.flops.shapes import PRESET_FILE
from tam_plugin.patches.hosts import host_named, host_of

_MLP = re.compile(r"mlp([1-9])x_gelu")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to count for.

    Attributes:
        name: of the dense model.
        tam_name: of the TAM model.
        layout: what is known of it.
        tam: experts, projectors and policy of the TAM model.
        model: sizes of the TAM model; ``model.dense()`` is the baseline.
    """

    name: str
    tam_name: str
    layout: TensorLayout
    tam: TamConfig
    model: ModelShape


def from_preset(name: str, tam: TamConfig | None = None) -> Subject:
    """A model of published sizes.

    Args:
        name: a key of :data:`PRESET_FILE`.
        tam: experts, projectors and policy; None for the defaults.

    Raises:
        InputError: there is no such preset.
    """
    presets = read_yaml(PRESET_FILE, what="FLOPs presets")
    if name not in presets:
        raise InputError(f"preset {name!r}: expected one of {', '.join(presets)}")
    values, tam = presets[name], tam or TamConfig()
    tam = tam.replace(policy=policy_to_store(tam.policy))
    layout = TensorLayout(
        host=host_named("llava").label,
        where=f"preset {name}",
        config={},
        encoder="",
        num_layers=values["vision"]["num_hidden_layers"],
        vision=values["vision"],
        projector="",
        projector_linears=("0", "2"),
        projector_type="mlp2x_gelu",
        pooling_head=False,
        language=values["language"],
        newline_position=values["newline_position"],
    )
    return _subject(values["name"], values["tam_name"], layout, tam)


def from_path(path: str | Path, tam: TamConfig | None = None) -> Subject:
    """The model that a checkpoint folder, or its config.json alone, describes; no weight is read.

    Args:
        path: folder or file.
        tam: what a dense checkpoint would become; None for the defaults.

    Raises:
        InputError: there is no such file.
        ConfigError: another kind of model, ``tam`` beside a TAM checkpoint, or a size that cannot be.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{str(path)!r} does not exist: expected a checkpoint folder or its {CONFIG}")
    config = read_json(path / CONFIG if path.is_dir() else path)
    with reading_config(repr(str(path))):
        layout = host_of(config, str(path)).tensor_layout(config, None, str(path))
    if layout.tam is not None and tam is not None:
        raise ConfigError(f"--config belongs to a dense model: {str(path)!r} is a TAM checkpoint and has its own")
    chosen = layout.tam or layout.complete(tam or TamConfig(), pool_mode_given=tam is not None)
    with reading_config(repr(str(path))):
        return _subject(f"{layout.host}, dense", f"{layout.host} with TAM", layout, chosen)


def _subject(name: str, tam_name: str, layout: TensorLayout, tam: TamConfig) -> Subject:
    projector_type = layout.projector_type
    found = _MLP.fullmatch(projector_type)
    if found is None and projector_type != "linear":
        raise ConfigError(
            f"{layout.where}: mm_projector_type = {projector_type!r}: expected linear or mlp2x_gelu (mlp1x to mlp9x)"
        )
    config, hidden = layout.config, layout.language.get("hidden_size")
    if not isinstance(hidden, int):
        raise ConfigError(f"{layout.where}: hidden_size = {hidden!r} of the language model: expected a whole number")
    read = config.get("vision_feature_layer", -1)
    wide = layout.vision["hidden_size"] * (len(read) if isinstance(read, list) else 1)
    widths = [wide, *[hidden] * (int(found[1]) if found else 1)]
    layers = tuple(itertools.pairwise(widths))
    model = model_shape(layout, tam, layers, pooling_head=layout.pooling_head)
    return Subject(name=name, tam_name=tam_name, layout=layout, tam=tam, model=model)
