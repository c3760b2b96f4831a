"""Weights of a checkpoint: complete and of the configuration's shapes, or refused; never random in silence."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from tam_plugin.bounds import is_whole
from tam_plugin.config import TamConfig, short
from tam_plugin.errors import ConfigError, InputError, TamError, one_line
from tam_plugin.headers import check_fits
from tam_plugin.model_folder import weight_shapes
from tam_plugin.patches.checkpoint_checks import check_encoder_fields, check_experts


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


def check_directory(directory: str, model_class: Any, values: dict[str, Any]) -> None:
    """Compare what config.json makes with what the weights hold, from headers alone, before memory is taken for it.

    Args:
        directory: the checkpoint; for a hub name the weights are compared when they are loaded.
        model_class: builds the model.
        values: config.json.

    Raises:
        InputError: a file cannot be read, or no model can be built.
        ConfigError: they differ; the message gives both numbers.
    """
    import torch

    tam = None if values.get("tam") is None else TamConfig.from_dict(values["tam"])
    if not Path(directory).is_dir():
        return
    shapes = weight_shapes(directory)
    if tam is not None:
        check_experts(shapes, tam.moe, directory)
    try:
        config = model_class.config_class(**{k: v for k, v in values.items() if k not in _OF_FILE})
        _check_vision(config, f"{directory}/config.json")
        with torch.device("meta"):
            model = model_class(config)
    except TamError:
        raise
    except Exception as error:  # whatever a class makes of strange values
        raise InputError(f"no model can be built from {directory}/config.json: {one_line(error)[:200]}") from error
    check_fits(model, shapes, directory)


def _check_vision(config: Any, where: str) -> None:
    """Refuse an encoder that cannot be built, or layers of it that it does not have."""
    check_encoder_fields(config.vision_config, f"{where}: vision_config")
    layers, read = config.vision_config.num_hidden_layers, config.vision_feature_layer
    chosen = read if isinstance(read, (list, tuple)) else [read]
    if not 1 <= len(chosen) <= layers + 1 or not all(is_whole(layer, -layers - 1, layers) for layer in chosen):
        raise ConfigError(
            f"{where}: vision_feature_layer = {short(read)}: expected layers from {-layers - 1} to {layers}"
        )


_OF_FILE = ("model_type", "architectures", "torch_dtype", "dtype", "transformers_version")
