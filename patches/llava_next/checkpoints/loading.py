"""TAM checkpoints through the host's loader: what is checked first, and adapters over a base."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tam_plugin.bounds import check_sizes
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.headers import Shapes
from tam_plugin.hub import CONFIG_FILES, WEIGHTS, model_folder
from tam_plugin.model_folder import check_folder, weight_shapes
from tam_plugin.patches.checkpoint_checks import check_experts, check_language, check_names
from tam_plugin.patches.llava_next.checkpoints.partial_saving import FILE_NAME, is_visual
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER
from tam_plugin.patches.sources import read_config

Weights = dict[str, torch.Tensor]

# What a model_name must hold for the host to take the right class; the first that fits the architecture.
_FAMILIES = {
    "mixtral": "llava_mixtral",
    "mistral": "llava_mistral",
    "gemma": "llava_gemma",
    "qwen2moe": "llava_qwen_moe",
    "qwenmoe": "llava_qwen_moe",
    "qwen": "llava_qwen",
    "llama": "llava_llama",
}
OVER_BASE = ("llava_qwen", "llava_qwen_moe", "llava_llama", "llava_mixtral")
NOT_COPIED = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}


def tam_values(model_path: str) -> dict[str, Any] | None:
    """config.json of a TAM checkpoint; None for any other model, and for what cannot be read."""
    try:
        values = read_config(model_path)
    except InputError:
        return None
    return values if values.get("mm_vision_tower") == VISION_TOWER else None


def load(original: Callable, arguments: dict[str, Any], values: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """Load a TAM checkpoint with the host's loader.

    Args:
        original: the host's ``load_pretrained_model``.
        arguments: the caller's, by name.
        values: config.json of ``model_path``.

    Returns:
        What the host returns: tokenizer, model, image processor, context length.

    Raises:
        ConfigError: configuration and weights do not fit each other, or a base is missing; before any weight is
            read if the checkpoint is a local folder.
    """
    path, base = arguments["model_path"], arguments["model_base"]
    if os.path.isdir(path):
        check_folder(path, adapters=True)
    check_sizes(values, f"{path}/config.json")
    tam = _config(values, arguments)
    shapes = weight_shapes(path) if os.path.isdir(path) else {}
    check_experts(shapes, tam.moe, path)
    arguments = {**arguments, "model_name": family_name(values, arguments["model_name"])}
    kind = _kind(path)
    if kind is None and base is None:
        if shapes:
            check_names(shapes, _expected(values, tam), path)
            check_language(shapes, values, path)
        return original(**arguments)
    if base is None:
        raise ConfigError(f"{path!r} holds {kind} only: pass model_base, the model that it was trained from")
    if kind is None:
        raise ConfigError(f"model_base = {base!r} was given, but {path!r} is a whole checkpoint: leave model_base out")
    return _load_over_base(original, arguments, values, tam)


def _load_over_base(
    original: Callable, arguments: dict[str, Any], values: dict[str, Any], tam: TamConfig
) -> tuple[Any, Any, Any, Any]:
    path, base, name = arguments["model_path"], arguments["model_base"], arguments["model_name"]
    if name not in OVER_BASE:
        raise ConfigError(f"{path!r} is an adapter over {name}: TAM adapters load over {', '.join(OVER_BASE)}")
    where = f"{path!r} over {base!r}"
    of_base, extras = read_config(base), _extras(path)
    in_base = weight_shapes(str(model_folder(base, CONFIG_FILES, WEIGHTS)))
    held = {**in_base, **{name: tuple(tensor.shape) for name, tensor in extras.items()}}
    check_experts(held, tam.moe, where)
    check_names(held, _expected(values, tam), where)
    check_language(held, values, where)
    changes = {k: v for k, v in values.items() if k not in NOT_COPIED and of_base.get(k) != v}
    overwrite = {**changes, **(arguments.get("overwrite_config") or {})}
    with _quiet():
        tokenizer, model, processor, context = original(
            **{**arguments, "model_path": base, "model_base": None, "overwrite_config": overwrite}
        )
    _fill(model, extras, held, where)
    if (Path(path) / "adapter_config.json").is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path).merge_and_unload()
    return tokenizer, model, processor, context


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of transformers that the base lacks weights: all of them are checked and loaded here."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _fill(model: Any, extras: Weights, held: Shapes, where: str) -> None:
    """Put the weights beside the adapter into a model that was loaded from its base."""
    state = model.state_dict()
    check_names({n: tuple(t.shape) for n, t in state.items()}, {n: tuple(t.shape) for n, t in extras.items()}, where)
    if missing := [name for name in state if is_visual(name) and name not in held]:
        raise ConfigError(f"{where} holds no {missing[0]}: the checkpoint is incomplete")
    model.load_state_dict(extras, strict=False)


def _extras(path: str) -> Weights:
    """Weights beside the adapter, by their names in the model; ours last, for it is complete."""
    from safetensors.torch import load_file

    extras: Weights = {}
    for name in ("mm_projector.bin", "non_lora_trainables.bin"):
        if (file := Path(path) / name).is_file():
            for key, tensor in torch.load(file, map_location="cpu", weights_only=True).items():
                extras[key.removeprefix("base_model.model.").replace(".base_layer.", ".")] = tensor
    if (file := Path(path) / FILE_NAME).is_file():
        extras.update(load_file(str(file)))
    return extras


def _kind(path: str) -> str | None:
    """What a checkpoint holds if it is not whole, in words."""
    if (Path(path) / "adapter_config.json").is_file():
        return "a LoRA adapter"
    return "a projector" if (Path(path) / "mm_projector.bin").is_file() else None


def _config(values: dict[str, Any], arguments: dict[str, Any]) -> TamConfig:
    given = (arguments.get("overwrite_config") or {}).get("tam", values.get("tam"))
    if given is None:
        raise ConfigError(f"{arguments['model_path']!r}: config.json has mm_vision_tower = 'tam' but no 'tam' section")
    return TamConfig.from_dict(given)


def family_name(values: dict[str, Any], given: str) -> str:
    """The host's name for the class of a configuration; ``given`` if it says nothing."""
    architecture = "".join([*(values.get("architectures") or []), values.get("model_type") or ""]).lower()
    architecture = architecture.replace("_", "")
    return next((name for part, name in _FAMILIES.items() if part in architecture), given)


def _expected(values: dict[str, Any], tam: TamConfig) -> Shapes:
    """Shapes of the tower and the projectors that a configuration makes, by their names in the model."""
    from types import SimpleNamespace

    from llava.model.multimodal_projector.builder import build_vision_projector

    from tam_plugin.patches.llava_next.model.tower import TamVisionTower

    config = SimpleNamespace(**{**values, "tam": tam.to_dict()})
    with torch.device("meta"):
        tower = TamVisionTower(tam)
        projector = build_vision_projector(config, vision_cfg=tower.config)
    parts = {"model.vision_tower.": tower, "model.mm_projector.": projector}
    return {prefix + n: tuple(t.shape) for prefix, part in parts.items() for n, t in part.state_dict().items()}
