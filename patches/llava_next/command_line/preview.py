"""What a training command would do, before it does: parameters that train, memory of a step; no weight is read."""

from __future__ import annotations

import argparse
import importlib
import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from tam_plugin.budget import read_policy
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_json
from tam_plugin.patches.llava_next.checkpoints.loading import family_name
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER, TamArguments, tam_config_from_args
from tam_plugin.patches.llava_next.command_line.preflight import check_siglip_source, check_training
from tam_plugin.patches.llava_next.model.tower import encoder_fields, siglip_config
from tam_plugin.patches.llava_next.model.trainable import choose, count_parts, parse_parts, part_of
from tam_plugin.patches.llava_next.records.argument import check_names
from tam_plugin.patches.llava_next.records.loss import LANGUAGE_MODELS
from tam_plugin.patches.sources import read_config
from tam_plugin.training.memory import Step, estimate, zero_settings
from tam_plugin.training.parts import Part

_CONFIGS = {"llava_llama": "LlavaConfig"}


@dataclass
class HostFlags:
    """The host's flags that matter here, with its defaults."""

    model_name_or_path: str = field(default="facebook/opt-125m")
    vision_tower: str | None = None
    mm_tunable_parts: str | None = None
    mm_projector_type: str = "linear"
    mm_patch_merge_type: str = "flat"
    mm_resampler_type: str | None = None
    image_aspect_ratio: str = "square"
    image_grid_pinpoints: str | None = None
    pretrain_mm_mlp_adapter: str | None = None
    lora_enable: bool = False
    lora_r: int = 64
    deepspeed: str | None = None
    gradient_checkpointing: bool = False
    per_device_train_batch_size: int = 8
    model_max_length: int = 4096


@dataclass
class SiglipFlag:
    """Apart from the others: together they would pass for the host's own arguments, which get ``--tam_*`` added."""

    vision_tower_pretrained: str | None = None


@dataclass(frozen=True)
class Preview:
    """What a command would do.

    Attributes:
        parts: parameters by part.
        memory: bytes, see :func:`tam_plugin.training.memory.estimate`.
        step: what the estimate is of.
    """

    parts: list[Part]
    memory: dict[str, float]
    step: Step


def preview(arguments: list[str], *, gpus: int) -> Preview:
    """Work out a command of ``train_mem.py``.

    Args:
        arguments: its arguments.
        gpus: data-parallel processes.

    Raises:
        TamError: what training itself would refuse before it loads weights; or no ``--mm_tunable_parts``.
    """
    flags, siglip, tam_args = _parse(arguments)
    if flags.vision_tower != VISION_TOWER:
        raise ConfigError(f"--vision_tower {flags.vision_tower}: expected {VISION_TOWER}")
    if flags.mm_tunable_parts is None:
        raise ConfigError(
            "--mm_tunable_parts is missing: expected some of mm_language_model, mm_mlp_adapter, mm_vision_tower"
        )
    host_args = SimpleNamespace(**vars(flags), **vars(siglip), tam_args=tam_args)
    check_training(host_args)
    values, tam = _configuration(flags, host_args)
    model = _on_meta(values, flags)
    host_parts = flags.mm_tunable_parts.split(",")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_host_trains(name, host_parts, lora=flags.lora_enable))
    if tam_args.tam_tunable_parts is not None:
        choose(model, parse_parts(tam_args.tam_tunable_parts))
    parts = count_parts(model.named_parameters())
    if flags.lora_enable:
        count = _lora_parameters(model, flags.lora_r)
        parts = [*parts[:1], Part("lora", count, count), *parts[1:]]
    step = _step(parts, values, tam, flags, gpus)
    return Preview(parts, estimate(step), step)


def _parse(arguments: list[str]) -> tuple[HostFlags, SiglipFlag, TamArguments]:
    from transformers import HfArgumentParser

    check_names(arguments)
    classes: list[Any] = [HostFlags, SiglipFlag, TamArguments]
    parser: Any = HfArgumentParser(classes, exit_on_error=False, allow_abbrev=False)
    parse = inspect.unwrap(HfArgumentParser.parse_args_into_dataclasses)  # transformers' own
    try:
        flags, siglip, tam_args, _ = parse(parser, arguments, return_remaining_strings=True)
    except argparse.ArgumentError as error:
        raise InputError("the training command cannot be read: there is no such file") from error
    return flags, siglip, tam_args


def _configuration(flags: HostFlags, host_args: Any) -> tuple[dict[str, Any], TamConfig]:
    """config.json of the model in training, and its TAM section."""
    values = read_config(flags.model_name_or_path)
    tower = values.get("mm_vision_tower")
    stored = TamConfig.from_dict(values.get("tam")) if tower == VISION_TOWER else None
    tam = tam_config_from_args(host_args, stored, folder=flags.model_name_or_path)
    if stored is None:
        source = check_siglip_source(host_args.vision_tower_pretrained) if tower is None else _tower_values(tower)
        tam = tam.replace(vision_encoder=encoder_fields(siglip_config(source)))
    encoder = siglip_config(tam.vision_encoder)
    defaults = {"mm_projector_type": flags.mm_projector_type, "mm_patch_merge_type": flags.mm_patch_merge_type}
    changes = {"mm_vision_tower": VISION_TOWER, "tam": tam.to_dict(), "mm_hidden_size": encoder.hidden_size}
    return {**defaults, **values, **changes}, tam


def _tower_values(tower: str) -> dict[str, Any]:
    from tam_plugin.patches.llava_next.checkpoints.tensor_layout import SO400M, SO400M_FIELDS

    try:
        return check_siglip_source(tower, "mm_vision_tower")
    except InputError:
        if tower == SO400M:  # the host's own class knows them; the hub need not be reached
            return dict(SO400M_FIELDS)
        raise


def _on_meta(values: dict[str, Any], flags: HostFlags) -> nn.Module:
    name = family_name(values, "llava_qwen" if "qwen" in flags.model_name_or_path.lower() else "llava_llama")
    module = importlib.import_module(f"llava.model.language_model.{name}")
    model_class = getattr(module, LANGUAGE_MODELS[name])
    config_class = getattr(module, _CONFIGS.get(name, LANGUAGE_MODELS[name].replace("ForCausalLM", "Config")))
    kept = {k: v for k, v in values.items() if k not in ("model_type", "architectures", "transformers_version")}
    with torch.device("meta"):
        return model_class(config_class(**kept))


def _host_trains(name: str, parts: list[str], *, lora: bool) -> bool:
    """The host's own rule of ``--mm_tunable_parts`` (train.py, "Deciding train which part of the model").

    For LoRA that of 2026-03 and later, which :func:`~tam_plugin.patches.llava_next.model.trainable.freeze_beside_lora`
    brings to older hosts.
    """
    if "vision_tower" in name:
        return "mm_vision_tower" in parts
    if "mm_projector" in name:
        return "mm_mlp_adapter" in parts
    if "vision_resampler" in name:
        return "mm_vision_resampler" in parts
    return "mm_language_model" in parts and not lora


def _lora_parameters(model: nn.Module, rank: int) -> int:
    """LoRA on every linear layer of the language model but the output layer, as the host puts it."""
    layers = [m for name, m in model.named_modules() if isinstance(m, nn.Linear) and part_of(name) == "llm"]
    output = model.get_output_embeddings()  # type: ignore[operator]
    return sum(rank * (m.in_features + m.out_features) for m in layers if m is not output)


def _step(parts: list[Part], values: dict[str, Any], tam: TamConfig, flags: HostFlags, gpus: int) -> Step:
    config = None
    if flags.deepspeed is not None:
        try:
            config = read_json(flags.deepspeed, what="--deepspeed")
        except FileNotFoundError as error:
            raise InputError(f"--deepspeed {flags.deepspeed!r} cannot be read: there is no such file") from error
    encoder = siglip_config(tam.vision_encoder)
    grid = encoder.image_size // encoder.patch_size
    policy = read_policy(tam.policy)
    samples = flags.per_device_train_batch_size
    vision = {
        "hidden_size": encoder.hidden_size,
        "intermediate_size": encoder.intermediate_size,
        "num_hidden_layers": encoder.num_hidden_layers - 1,
        "top_k": tam.moe.top_k if tam.moe.enabled else 1,
    }
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size")
    return Step(
        parameters=sum(part.parameters for part in parts),
        trainable=sum(part.trainable for part in parts),
        gpus=gpus,
        checkpointing=flags.gradient_checkpointing,
        tokens=samples * flags.model_max_length,
        frames=samples * policy.max_frames,
        patches=grid**2,
        language={name: int(values[name]) for name in names},
        vision=vision,
        **zero_settings(config),
    )
