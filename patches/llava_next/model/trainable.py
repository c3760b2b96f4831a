"""Which parameters of a TAM model train: the host's choice, narrowed to parts of the visual side, and LoRA's reach."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

from torch import nn

from tam_plugin.errors import ConfigError
from tam_plugin.patches.llava_next.checkpoints.partial_saving import canonical, is_visual
from tam_plugin.training.parts import Part

VISUAL_PARTS = ("gates", "experts", "tower", "projectors", "newline")
"""Values of ``--tam_tunable_parts``; ``tower`` is the rest of the vision tower: attention, norms, embeddings."""
LORA_TOWER = "vision_tower"


def part_of(name: str) -> str:
    """The part that a parameter of the host's model belongs to: one of :data:`VISUAL_PARTS`, ``lora`` or ``llm``."""
    if "lora_" in name:
        return "lora"
    name = canonical(name)
    if not is_visual(name):
        return "llm"
    if ".gate.weight" in name:
        return "gates"
    if ".mlp.experts." in name:
        return "experts"
    if "mm_projector" in name:
        return "projectors"
    return "tower" if "vision_tower" in name else "newline"


def parse_parts(text: str) -> frozenset[str]:
    """The parts of ``--tam_tunable_parts``; ``none`` is the empty set.

    Raises:
        ConfigError: an unknown part.
    """
    parts = frozenset(part.strip() for part in text.split(",")) - {"none", ""}
    if strange := sorted(parts.difference(VISUAL_PARTS)):
        raise ConfigError(
            f"--tam_tunable_parts {text!r}: there is no part {strange[0]!r}; expected none, or some of "
            f"{', '.join(VISUAL_PARTS)}, separated by commas"
        )
    return parts


def choose(model: nn.Module, parts: frozenset[str]) -> None:
    """Let just these parts of the visual side train; the language model and LoRA stay as the host left them.

    Raises:
        ConfigError: the model has no such part.
    """
    found = set()
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part in VISUAL_PARTS:
            found.add(part)
            parameter.requires_grad_(part in parts)
    if missing := sorted(parts - found):
        raise ConfigError(
            f"--tam_tunable_parts: this model has no {missing[0]}; it has {', '.join(sorted(found))} (a dense tower "
            "has neither gates nor experts: --tam_moe True makes them)"
        )


def keep_lora_off_the_tower(model: nn.Module) -> int:
    """Remove LoRA from the vision tower, where the host's search by ends of names puts it if it starts from a LLaVA.

    The adapter's configuration says so too, so that loading it elsewhere puts none there.

    Returns:
        How many layers had it.
    """
    taken = 0
    for name, module in list(model.named_modules()):
        if LORA_TOWER in name.split(".") and hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.base_layer)
            taken += 1
    configs: dict[str, Any] = getattr(model, "peft_config", None) or {}
    for config in configs.values():
        if isinstance(config.target_modules, (set, list, tuple)):
            ends = "|".join(re.escape(end) for end in sorted(config.target_modules))
            config.target_modules = rf"(?!.*\b(?:vision_tower|mm_projector|vision_resampler)\b).*\b(?:{ends})"
    return taken


def freeze_beside_lora(model: nn.Module, *, parts_given: bool) -> int:
    """Let LoRA train and nothing else of the language model, whatever the host's version made of it.

    Before 2026-03-09 ``--mm_tunable_parts`` with ``mm_language_model`` unfroze the whole language model beside LoRA
    (and the newline), and without it froze LoRA too.

    Args:
        model: with LoRA on it.
        parts_given: whether the host decided by ``--mm_tunable_parts``; otherwise peft did, and its choice of biases
            (``--lora_bias``) stays.

    Returns:
        How many parameters beside LoRA were frozen that the host had left to train.
    """
    frozen = 0
    for name, parameter in model.named_parameters():
        part = part_of(name)
        if part == "lora":
            parameter.requires_grad_(True)
        elif parts_given and part in ("llm", "newline") and parameter.requires_grad:
            parameter.requires_grad_(False)
            frozen += size_of(parameter)
    return frozen


def size_of(parameter: nn.Parameter) -> int:
    """Elements of a parameter, also of one that ZeRO-3 holds in parts."""
    return int(getattr(parameter, "ds_numel", None) or parameter.numel())


def arrange(trainer: Any) -> None:
    """Carry out ``--tam_tunable_parts`` and ``--tam_lora_tower`` before the optimizer is made, and print the result.

    Raises:
        ConfigError: an unknown part, or one that the model does not have.
    """
    model, tam_args = trainer.model, getattr(trainer.train_dataset, "data_args", None)
    tam_args = getattr(tam_args, "tam_args", None)
    notes = []
    if hasattr(model, "peft_config"):
        taken = 0 if getattr(tam_args, "tam_lora_tower", None) else keep_lora_off_the_tower(model)
        if taken:
            notes.append(
                f"LoRA is not applied to {taken} layers of the vision tower (--tam_lora_tower True applies it)"
            )
        frozen = freeze_beside_lora(model, parts_given=getattr(trainer.args, "mm_tunable_parts", None) is not None)
        if frozen:
            notes.append(
                f"{frozen:,} parameters other than LoRA's were frozen: this version of the host would train them"
            )
    text = getattr(tam_args, "tam_tunable_parts", None)
    if text is not None:
        choose(model, parse_parts(text))
    if trainer.args.process_index == 0:
        from tam_plugin.training.parts import format_parts

        print(format_parts(count_parts(model.named_parameters())), *notes, sep="\n", file=sys.stderr)


def count_parts(parameters: Iterable[tuple[str, nn.Parameter]]) -> list[Part]:
    """Parameters of each part, all and trainable."""
    order = ("llm", "lora", *VISUAL_PARTS)
    counts = {name: [0, 0] for name in order}
    for name, parameter in parameters:
        size = size_of(parameter)
        counts[part_of(name)][0] += size
        counts[part_of(name)][1] += size if parameter.requires_grad else 0
    return [Part(name, *counts[name]) for name in order if counts[name][0]]
