"""The TAM tower from a pretrained SigLIP: from its weight files, or from the host's own tower in memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.checkpoint_checks import check_names
from tam_plugin.patches.llava_next.command_line.preflight import check_siglip_source
from tam_plugin.patches.llava_next.model.tower import TamVisionTower, encoder_fields, siglip_config
from tam_plugin.vision.upcycle import upcycle_vision_encoder

NEW_KEYS = (".mlp.gate.", ".mlp.experts.")
"""Parts of names that upcycling adds."""


def tower_from_siglip(name_or_path: str | None, config: TamConfig) -> TamVisionTower:
    """Read a SigLIP encoder from a folder or the hub (its cache first) and upcycle it.

    Raises:
        ConfigError: it is another kind of model, or tensors are missing.
        InputError: nothing can be read there.
    """
    values = check_siglip_source(name_or_path)
    tower = _dense_on_meta(config.replace(vision_encoder=encoder_fields(siglip_config(values))))
    wanted = dict(tower.vision_tower.named_parameters())
    weights = {name: tensor for name, tensor in _encoder_weights(str(name_or_path)).items() if name in wanted}
    check_names(shapes_of(weights), shapes_of(wanted), f"--vision_tower_pretrained {name_or_path!r}")
    # In the default dtype, as the host's own tower is loaded; the host casts towers afterwards.
    weights = {name: tensor.to(torch.get_default_dtype()) for name, tensor in weights.items()}
    tower.vision_tower.load_state_dict(weights, assign=True)
    tower.vision_tower.requires_grad_(False)
    return upcycled(tower, config)


def tower_from_dense(dense: nn.Module, values: dict[str, Any], config: TamConfig) -> TamVisionTower:
    """Upcycle the encoder of a tower in memory; its modules (LoRA layers too) move into the new tower.

    Args:
        dense: the SigLIP model of the host's tower, its last layer gone already.
        values: the fields of its ``SiglipVisionConfig``.
        config: the mixture.

    Raises:
        ConfigError: its modules are not those of a SigLIP encoder.
    """
    before = set(dense.state_dict())
    tower = _dense_on_meta(config.replace(vision_encoder=values))
    for name, module in list(tower.vision_tower.named_modules()):
        if any(True for _ in module.parameters(recurse=False)):
            _move(dense, tower.vision_tower, name)
    tower = upcycled(tower, config)
    added = set(tower.vision_tower.state_dict()) - before
    if strange := sorted(name for name in added if not any(part in name for part in NEW_KEYS)):
        raise ConfigError(f"upgrading the vision tower made up {strange[0]}: expected new gates and experts only")
    return tower.train(dense.training)


def upcycled(tower: TamVisionTower, config: TamConfig) -> TamVisionTower:
    """Turn a dense TAM tower into the mixture of ``config``, in place."""
    upcycle_vision_encoder(tower.vision_tower, config)
    tower.tam_config = config.replace(vision_encoder=tower.tam_config.vision_encoder)
    return tower


def shapes_of(tensors: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _dense_on_meta(config: TamConfig) -> TamVisionTower:
    with torch.device("meta"):
        return TamVisionTower(config.replace(moe={"enabled": False}))


def _move(source: nn.Module, target: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    try:
        module = source.get_submodule(name)
    except AttributeError:
        raise ConfigError(f"the vision tower has no {name}: expected the modules of a SigLIP encoder") from None
    expected: Any = target.get_submodule(name)
    found: Any = getattr(module, "weight", expected.weight)
    if found.shape != expected.weight.shape:
        raise ConfigError(
            f"the vision tower's {name} has shape {list(found.shape)}, its configuration says "
            f"{list(expected.weight.shape)}"
        )
    setattr(target.get_submodule(parent), child, module)


def _encoder_weights(name_or_path: str) -> dict[str, torch.Tensor]:
    """Tensors of the vision encoder, named as in :class:`SiglipVisionEncoder`."""
    tensors = {}
    for file in _weight_files(name_or_path):
        if file.endswith(".safetensors"):
            from safetensors import safe_open

            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (not a dict)
                    if not name.startswith(("text_model.", "logit_")):
                        tensors[_qualified(name)] = opened.get_tensor(name)
        else:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
            tensors.update((_qualified(name), tensor) for name, tensor in loaded.items())
    return tensors


def _qualified(name: str) -> str:
    return name if name.startswith("vision_model.") else f"vision_model.{name}"


def _weight_files(name_or_path: str) -> list[str]:
    from transformers.utils import cached_file
    from transformers.utils.hub import get_checkpoint_shard_files

    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        try:
            file = str(cached_file(name_or_path, name))
        except OSError:
            continue
        if file.endswith(".index.json"):
            return list(get_checkpoint_shard_files(name_or_path, file)[0])
        return [file]
    place = Path(name_or_path).resolve() if os.path.isdir(name_or_path) else name_or_path
    raise InputError(f"no weights of a SigLIP encoder at {str(place)!r}: expected model.safetensors")
