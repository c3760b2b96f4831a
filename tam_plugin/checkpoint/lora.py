"""A LoRA adapter as peft saves it: pairs of small matrices in a file, and a configuration that gives their scale."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.checkpoint.mapping import check_float
from tam_plugin.checkpoint.shards import Shard, open_shard
from tam_plugin.checkpoint.source import read_json
from tam_plugin.checkpoint.writing import LowRank, Region
from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

_HARMLESS = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "rank_pattern",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "use_rslora",
    }
)
"""Fields that are honoured here, or that say nothing of what the trained adapter computes. Any other one that is
set makes it something else than W + scale · B · A, or is of a peft that is newer than this list."""

_BASE_UNCHANGED = (None, True, False, "gaussian", "orthogonal", "eva")
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<kind>[AB])\.weight")


@dataclass(frozen=True)
class Adapter:
    """An adapter on disk.

    Attributes:
        folder: where it lies.
        settings: its adapter_config.json.
        shard: its weight file.
        pairs: what it adds, by the names of the linear layers in the plain model.
    """

    folder: Path
    settings: dict[str, Any]
    shard: Shard
    pairs: dict[str, LowRank]

    def targets(self, module: str) -> bool:
        """Whether the configuration puts LoRA on a module of this name, as peft reads it."""
        wanted, excluded = self.settings["target_modules"], self.settings.get("exclude_modules")
        return _matches(wanted, module) and not (excluded and _matches(excluded, module))

    def check_layers(self, modules: Iterable[str]) -> None:
        """Refuse an adapter that lacks a layer whose like it holds, and which its configuration names.

        Args:
            modules: the model's modules that have a matrix.

        Raises:
            ConfigError: by name.
        """
        if self.settings.get("layers_to_transform") is not None:
            return
        kinds = {_any_layer(module) for module in self.pairs}
        for module in modules:
            if module not in self.pairs and _any_layer(module) in kinds and self.targets(module):
                raise ConfigError(
                    f"{str(self.shard.path)!r} holds no LoRA of {module}, which {ADAPTER_CONFIG} names: the adapter is "
                    "incomplete"
                )


def open_adapter(folder: Path, prefix: str) -> Adapter:
    """Open an adapter and pair its matrices.

    Args:
        folder: the adapter's.
        prefix: start of the names in its file that the plain model's names lack.

    Raises:
        InputError: a file is missing or damaged.
        ConfigError: it is more than LoRA of linear layers, or weights and configuration do not fit each other.
    """
    settings = read_json(folder / ADAPTER_CONFIG)
    where = str(folder / ADAPTER_CONFIG)
    _check_settings(settings, where)
    path = next((folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{str(folder)!r} holds {ADAPTER_CONFIG} but no {ADAPTER_WEIGHTS[0]}: the run was stopped while it saved; "
            "take an earlier checkpoint of it"
        )
    shard = open_shard(path)
    try:
        adapter = Adapter(folder, settings, shard, {})
        for module, (a, b) in _paired(shard, prefix).items():
            if not adapter.targets(module):
                raise ConfigError(
                    f"{str(path)!r} holds LoRA of {module}, which target_modules = "
                    f"{short(settings.get('target_modules'))} of {ADAPTER_CONFIG} does not name: they do not belong "
                    "together"
                )
            adapter.pairs[module] = _low_rank(shard, module, a, b, settings)
    except BaseException:
        shard.close()
        raise
    return adapter


def _check_settings(settings: dict[str, Any], where: str) -> None:
    kind, bias, start = settings.get("peft_type"), settings.get("bias", "none"), settings.get("init_lora_weights")
    if kind != "LORA":
        raise ConfigError(f"{where!r}: peft_type = {kind!r}: expected 'LORA'")
    if bias != "none":
        raise ConfigError(
            f"{where!r}: bias = {bias!r}: expected 'none', since trained biases are not in the sum W + B·A"
        )
    for name, value in settings.items():
        if value and name not in _HARMLESS and name != "bias":
            raise ConfigError(
                f"{where!r}: {name} = {short(value)}: expected it unset, since only plain LoRA of linear layers is "
                "merged on disk; load adapter and base with the host's loader instead"
            )
    if start not in _BASE_UNCHANGED:
        raise ConfigError(
            f"{where!r}: init_lora_weights = {start!r} changes the base's weights before training, which the adapter "
            "does not hold: expected true, 'gaussian', 'orthogonal' or 'eva'"
        )
    for name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(settings.get(name) or {}, dict):
            raise ConfigError(f"{where!r}: {name} = {short(settings[name])}: expected a mapping")
    for name in ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"):
        value = settings.get(name) or []
        if not isinstance(value, (str, list, dict)) or not all(isinstance(item, str) for item in value):
            raise ConfigError(f"{where!r}: {name} = {short(value)}: expected names or a pattern")
        _check_patterns([value] if isinstance(value, str) else value if isinstance(value, dict) else [], name, where)
    if not settings.get("target_modules"):
        raise ConfigError(f"{where!r}: target_modules is missing: expected the names of the layers, or a pattern")


def _check_patterns(patterns: Iterable[str], name: str, where: str) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"{where!r}: {name}: {pattern!r} is not a regular expression ({error})") from None


def _paired(shard: Shard, prefix: str) -> dict[str, tuple[str, str]]:
    """Names of A and B of each module.

    Raises:
        ConfigError: a tensor is neither, or alone.
    """
    halves: dict[str, dict[str, str]] = {}
    for name in shard.tensors:
        found = _TENSOR.fullmatch(name)
        if found is None or not name.startswith(prefix):
            raise ConfigError(
                f"{str(shard.path)!r} holds {name}: expected {prefix}….lora_A.weight and lora_B.weight of linear "
                "layers only"
            )
        halves.setdefault(found["module"].removeprefix(prefix), {})[found["kind"]] = name
    if not halves:
        raise ConfigError(f"{str(shard.path)!r} holds no LoRA weights: the adapter is empty")
    for module, half in halves.items():
        if len(half) < 2:
            absent = "B" if "A" in half else "A"
            raise ConfigError(f"{str(shard.path)!r} holds no lora_{absent} of {module}: the adapter is incomplete")
    return {module: (half["A"], half["B"]) for module, half in halves.items()}


def _low_rank(shard: Shard, module: str, a: str, b: str, settings: dict[str, Any]) -> LowRank:
    rank, scale = _rank_and_scale(module, settings, str(shard.path.parent / ADAPTER_CONFIG))
    for name, axis in ((a, 0), (b, 1)):
        entry = shard.tensors[name]
        check_float(entry, name, str(shard.path))
        if len(entry.shape) != 2 or entry.shape[axis] != rank:
            raise ConfigError(
                f"{str(shard.path)!r}: {name} has shape {list(entry.shape)}, but {ADAPTER_CONFIG} says "
                f"{[rank, '…'] if axis == 0 else ['…', rank]}".replace("'", "")
            )
    return LowRank(Region.whole(shard, a), Region.whole(shard, b), scale)


def _rank_and_scale(module: str, settings: dict[str, Any], where: str) -> tuple[int, float]:
    rank, rank_name = _for_module(settings, "rank_pattern", "r", module)
    alpha, alpha_name = _for_module(settings, "alpha_pattern", "lora_alpha", module)
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ConfigError(f"{where!r}: {rank_name} = {short(rank)}: expected a whole number >= 1")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise ConfigError(f"{where!r}: {alpha_name} = {short(alpha)}: expected a number")
    return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)


def _for_module(settings: dict[str, Any], patterns: str, default: str, module: str) -> tuple[Any, str]:
    """A value that may differ from module to module, and where it stands; the first pattern that fits holds."""
    for pattern, value in (settings.get(patterns) or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value, f"{patterns}[{pattern!r}]"
    return settings.get(default), default


def _matches(wanted: str | list[str], module: str) -> bool:
    if isinstance(wanted, str):
        return wanted == "all-linear" or re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def _any_layer(module: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", module)
