"""Experts and projectors that a checkpoint has, against those that training asks for."""

from __future__ import annotations

import shlex
from typing import Any

from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.training.zero3 import zero_stage


def check_same_structure(stored: TamConfig, asked: TamConfig) -> None:
    """Refuse to continue a TAM checkpoint with other experts or projectors than it has.

    A dense tower may get experts, and a single projector may be copied to every stride (from stage 2 to stage 3).

    Raises:
        ConfigError: by field, with both values.
    """
    fields: list[tuple[str, Any, Any]] = []
    if stored.moe.enabled:
        fields += [
            ("--tam_moe", stored.moe.enabled, asked.moe.enabled),
            ("--tam_num_experts", stored.moe.num_experts, asked.moe.num_experts),
        ]
    if projectors_of(stored) != ["shared"]:
        fields.append(("--tam_strides, --tam_projector_gate", projectors_of(stored), projectors_of(asked)))
    for name, before, after in fields:
        if before != after:
            raise ConfigError(
                f"{name}: {after!r} was asked for, but the checkpoint has {before!r}: leave it as it is, or start "
                "from the dense checkpoint"
            )


def same_modules(stored: TamConfig | None, asked: TamConfig) -> bool:
    """Whether a checkpoint's tower and projectors are the modules that are asked for."""
    if stored is None:
        return False
    same_experts = (stored.moe.enabled, stored.moe.num_experts) == (asked.moe.enabled, asked.moe.num_experts)
    return same_experts and projectors_of(stored) == projectors_of(asked)


def projectors_of(config: TamConfig) -> list[str]:
    """Names of the projectors that a configuration makes; with the number of experts of a soft one."""
    projector = config.projector
    return [f"soft mixture of {projector.num_experts}"] if projector.gate == "soft" else projector.children


def stage_of(deepspeed: Any) -> int | None:
    """The ZeRO stage of ``--deepspeed``; None without it.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return zero_stage(deepspeed)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"--deepspeed {deepspeed!r} cannot be read: {error}") from error


def check_zero3(stored: TamConfig | None, asked: TamConfig, flags: Any) -> None:
    """Refuse what would copy weights that ZeRO-3 holds in parts.

    Args:
        stored: configuration of the checkpoint; None for a dense one.
        asked: the one that training is to have.
        flags: as for :func:`check_training`.

    Raises:
        ConfigError: it says what to do instead.
    """
    start = flags.model_name_or_path
    if not same_modules(stored, asked):
        raise ConfigError(in_parts(start, stored, asked))
    if getattr(flags, "pretrain_mm_mlp_adapter", None) is not None:
        raise ConfigError(
            f"--pretrain_mm_mlp_adapter: ZeRO-3 holds the projectors of {start!r} in parts, so none can be loaded into "
            "them; leave the argument out, or train under ZeRO-2"
        )


def in_parts(start: str, stored: TamConfig | None, asked: TamConfig) -> str:
    """The message for a checkpoint that ZeRO-3 keeps from being upgraded; arguments as for :func:`check_zero3`."""
    what = "is dense" if stored is None else "lacks the experts or projectors that are asked for"
    on_disk = f"; convert it on disk first ({_upcycle_command(start, asked)}) and start from DIR"
    way_out = f"{on_disk if stored is None else ''}; or train under ZeRO-2"
    return (
        f"--deepspeed: under ZeRO-3 the weights of {start!r} are split up as they are loaded, and the checkpoint "
        f"{what}: nothing can be copied into experts and projectors then{way_out}"
    )


def _upcycle_command(start: str, asked: TamConfig) -> str:
    """The command that makes of a dense checkpoint what is asked for."""
    default = TamConfig()
    words = ["tam", "upcycle", start, "DIR"]
    if (asked.moe.enabled, asked.projector.gate) != (default.moe.enabled, default.projector.gate):
        return f"{shlex.join(words)} --config FILE.yaml, with moe.enabled and projector.gate as here"
    for option in ("num_experts", "top_k"):
        if getattr(asked.moe, option) != getattr(default.moe, option):
            words += [f"--{option.replace('_', '-')}", str(getattr(asked.moe, option))]
    if asked.projector.strides != default.projector.strides:
        words += ["--strides", ",".join(map(str, asked.projector.strides))]
    return shlex.join(words)
