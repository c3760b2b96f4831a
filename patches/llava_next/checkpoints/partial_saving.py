"""Everything visual beside an adapter: a run that saves LoRA or the projector alone saves a model that can be loaded.

The host writes the adapter (and, when training ends, what was trainable). The upcycled tower, the projectors and
``image_newline`` are then nowhere if they were frozen, and nowhere at all in a ``checkpoint-N``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tam_plugin.errors import ConfigError
from tam_plugin.storage import replace_path

FILE_NAME = "tam_non_lora.safetensors"
VISUAL_PARTS = ("vision_tower", "mm_projector", "vision_resampler", "image_newline", "faster_token")


def is_visual(name: str) -> bool:
    """Whether a parameter belongs to the visual side of the model."""
    return any(part in name.split(".") for part in VISUAL_PARTS)


def canonical(name: str) -> str:
    """A parameter's name in the model without LoRA."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def saves_parts_only(trainer: Any) -> bool:
    """Whether the host saves this run's LoRA or projector only."""
    args = trainer.args
    parts = set((getattr(args, "mm_tunable_parts", None) or "").split(","))
    projector_only = len(parts) == 1 and parts <= {"mm_mlp_adapter", "mm_vision_resampler"}
    return hasattr(trainer.model, "peft_config") or getattr(args, "tune_mm_mlp_adapter", False) or projector_only


def save_non_lora(trainer: Any, directory: str) -> None:
    """Write visual and trainable weights that are not LoRA's, and the configuration; called on every rank."""
    from safetensors.torch import save_file

    state = {
        canonical(name): _whole(parameter)
        for name, parameter in trainer.model.named_parameters()
        if "lora_" not in name and (is_visual(name) or parameter.requires_grad)
    }
    if trainer.args.should_save:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with replace_path(Path(directory) / FILE_NAME) as part:
            save_file(state, str(part), metadata={"format": "pt"})
        trainer.model.config.save_pretrained(directory)


def load_non_lora(model: torch.nn.Module, directory: str) -> None:
    """Put what :func:`save_non_lora` wrote back into a model in training; nothing if there is no such file.

    Raises:
        ConfigError: the file belongs to another model.
    """
    from safetensors.torch import load_file

    file = Path(directory) / FILE_NAME
    if not file.is_file():
        return
    held = load_file(str(file))
    parameters = {canonical(n): p for n, p in model.named_parameters() if "lora_" not in n}
    for name, tensor in held.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            found = list(parameters[name].shape) if name in parameters else "no such parameter"
            raise ConfigError(f"{file}: {name} has shape {list(tensor.shape)}, the model has {found}")
    with torch.no_grad():
        for name, tensor in held.items():
            parameters[name].copy_(tensor)


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    if hasattr(parameter, "ds_id"):  # ZeRO-3 keeps a part of it on each rank
        from deepspeed import zero

        with zero.GatheredParameters([parameter]):
            return parameter.detach().cpu().clone().contiguous()
    return parameter.detach().cpu().contiguous()
