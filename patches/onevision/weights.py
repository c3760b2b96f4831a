"""Weights of a checkpoint: complete and of the configuration's shapes, or refused; never random in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError, TamError

EXPERT_TENSOR = "mlp.experts.fc1.weight"


def load_weights(model_class: Any, name_or_path: str, dtype: Any) -> Any:
    """``model_class.from_pretrained`` that refuses missing weights instead of initialising them at random.

    Raises:
        InputError: the files cannot be read.
        ConfigError: weights are missing or of other shapes than the configuration says; or, in a TAM checkpoint,
            there are some that its configuration does not know.
    """
    try:
        model, info = model_class.from_pretrained(name_or_path, torch_dtype=dtype, output_loading_info=True)
    except TamError:
        raise
    except Exception as error:  # safetensors, torch and transformers each raise their own
        raise InputError(f"the weights of {name_or_path!r} cannot be loaded: {first_line(error)}") from error
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
    return model


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for one-line reports."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def check_experts(directory: str) -> None:
    """Compare the experts that config.json names with those that the weights hold, from headers alone.

    Raises:
        ConfigError: they differ; the message gives both numbers.
    """
    if not Path(directory).is_dir():
        return  # a hub name: its shapes are compared when the weights are loaded
    config = TamConfig.from_dict(json.loads((Path(directory) / "config.json").read_text()).get("tam"))
    named = config.moe.num_experts if config.moe.enabled else 0
    for file in sorted(Path(directory).glob("*.safetensors")):
        for held in _experts_held(file):
            if held != named:
                raise ConfigError(
                    f"{directory}: config.json names {named} experts (tam.moe.num_experts), the weights hold {held}; "
                    "correct the configuration or take the checkpoint that belongs to it"
                )


def _experts_held(file: Path) -> set[int]:
    """Numbers of experts that the stacked tensors of ``file`` have, from its header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.endswith(EXPERT_TENSOR)]  # noqa: SIM118 (not a dict)
            return {tensors.get_slice(name).get_shape()[0] for name in names}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is not a readable safetensors file: {first_line(error)}") from error
