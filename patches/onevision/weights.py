"""Weights of a checkpoint: complete and of the configuration's shapes, or refused; never random in silence."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError, TamError
from tam_plugin.patches.checkpoint_checks import check_experts, tensor_shapes


@functools.cache
def key_mapping() -> dict[str, str]:
    """Renames keys of checkpoints saved by the other generation of transformers to those of the one that is here.

    Version 5 saves ``model.vision_tower.encoder…`` and ``model.language_model…``; version 4 saves
    ``vision_tower.vision_model.encoder…`` and ``language_model.model…``.
    """
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    with torch.device("meta"):
        tiny = SiglipVisionModel(SiglipVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1))
    nested = hasattr(tiny, "vision_model")
    tower = r"^(?:model\.)?vision_tower\.(?!vision_model\.)" if nested else r"^(?:model\.)?vision_tower\.vision_model\."
    return {
        tower: "model.vision_tower.vision_model." if nested else "model.vision_tower.",
        r"^vision_tower\.": "model.vision_tower.",
        r"^language_model\.model\.": "model.language_model.",
        r"^language_model\.lm_head\.": "lm_head.",
        r"^multi_modal_projector\.": "model.multi_modal_projector.",
        r"^image_newline": "model.image_newline",
    }


def load_weights(load: Any, name_or_path: str, **kwargs: Any) -> Any:
    """Call ``load`` (a ``from_pretrained``) and refuse what transformers would only warn of.

    Returns:
        What ``load`` returns: the model, or with ``output_loading_info`` the model and the information.

    Raises:
        InputError: the files cannot be read.
        ConfigError: weights are missing or of other shapes than the configuration says; or, in a TAM checkpoint,
            there are some that its configuration does not know.
    """
    wants_info = kwargs.pop("output_loading_info", False)
    try:
        model, info = load(name_or_path, output_loading_info=True, **kwargs)
    except TamError:
        raise
    except Exception as error:  # safetensors, torch, json and transformers each raise their own
        raise InputError(f"the weights of {name_or_path!r} cannot be loaded: {first_line(error)}") from error
    # transformers 5 would undo these renamings when the model is saved; it is saved in its own generation's layout.
    vars(model).pop("_weight_conversions", None)
    kinds = ["missing_keys", "mismatched_keys"]
    if getattr(model.config, "tam", None) is not None:
        kinds.append("unexpected_keys")
    for kind in kinds:
        names = sorted(str(name) for name in info.get(kind) or ())
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ConfigError(
                f"{name_or_path}: {kind.replace('_keys', '')} weights ({names[0]}{more}): the checkpoint does not "
                "fit its config.json"
            )
    return (model, info) if wants_info else model


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one-line reports."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_directory(directory: str) -> None:
    """Compare the experts that config.json names with those that the weights hold, from headers alone.

    Raises:
        InputError: a file cannot be read.
        ConfigError: they differ; the message gives both numbers.
    """
    if not Path(directory).is_dir():
        return  # a hub name: its shapes are compared when the weights are loaded
    config = TamConfig.from_dict(json.loads((Path(directory) / "config.json").read_text()).get("tam"))
    try:
        shapes = tensor_shapes(directory)
    except Exception as error:  # safetensors and torch raise their own
        raise InputError(f"{directory}: not a readable safetensors or .bin file: {first_line(error)}") from error
    check_experts(shapes, config.moe, directory)
