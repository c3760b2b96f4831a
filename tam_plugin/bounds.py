"""How large what others describe may be: the bounds of counts in configurations, stated once.

They end what would never end (a million layers) before anything of that size is made. That a model is no larger than
its weights, the readers of checkpoints compare on top of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tam_plugin.errors import ConfigError, TamError

MAX_EXPERTS = 1024
MAX_STRIDES = 64
MAX_STRIDE = 255
MAX_GRID = 4096
"""Patches per side of a frame."""
MAX_FRAMES = 65_535
"""Frames of one video and, above, the coarsest stride: what the columns of a table of plans hold."""
MAX_TOKENS = 10**9
MAX_GROUPS = 64
MAX_CURVE_POINTS = 1000
MAX_LABELS = 1000
MAX_BEAMS = 64

_LAYERS, _WIDTH, _HEADS = (1, 512), (1, 1 << 20), (1, 1024)
SIZES: dict[str, tuple[int, int]] = {
    "attention_head_dim": _WIDTH,
    "decoder_layers": _LAYERS,
    "embedding_size": _WIDTH,
    "encoder_layers": _LAYERS,
    "head_dim": _WIDTH,
    "hidden_size": (1, 1 << 16),
    "image_size": (1, 1 << 14),
    "intermediate_size": _WIDTH,
    "max_position_embeddings": (1, 1 << 25),
    "mm_hidden_size": _WIDTH,
    "moe_intermediate_size": _WIDTH,
    "n_embd": (1, 1 << 16),
    "n_head": _HEADS,
    "n_heads": _HEADS,
    "n_layer": _LAYERS,
    "n_layers": _LAYERS,
    "n_positions": (1, 1 << 25),
    "num_attention_heads": _HEADS,
    "num_channels": (1, 64),
    "num_experts": (0, MAX_EXPERTS),
    "num_experts_per_tok": (0, MAX_EXPERTS),
    "num_hidden_layers": _LAYERS,
    "num_key_value_heads": _HEADS,
    "num_labels": (1, MAX_LABELS),
    "num_layers": _LAYERS,
    "num_local_experts": (0, MAX_EXPERTS),
    "patch_size": (1, 1 << 12),
    "shared_expert_intermediate_size": _WIDTH,
    "type_vocab_size": (0, 1 << 16),
    "vocab_size": (1, 1 << 23),
}
"""Lowest and highest value of the sizes in a model's ``config.json``, by the names that transformers gives them; each
several times that of any published model."""

TAM_SECTION = "tam"
"""Key of a ``config.json`` that :class:`~tam_plugin.config.TamConfig` checks."""
_LISTS = 100_000
"""Entries of any list or mapping in a configuration, at most."""


def check_sizes(values: Mapping[str, Any], where: str) -> None:
    """Refuse a model's configuration with sizes out of range, in its sections too.

    Args:
        values: the content of a ``config.json``.
        where: the file, for the message.

    Raises:
        ConfigError: a size is no whole number or out of bounds, a list is endless, or code of others is named; by its
            dotted name.
    """
    for name, value in values.items():
        if name == TAM_SECTION or not isinstance(name, str):
            continue
        if "implementation" in name and "/" in str(value):  # transformers would fetch and run it
            raise ConfigError(
                f"{where}: {name} = {str(value)[:80]!r} names code on a hub: expected a name such as sdpa"
            )
        if isinstance(value, (Mapping, list)) and len(value) > _LISTS:
            raise ConfigError(f"{where}: {name} holds {len(value):,} entries: expected at most {_LISTS:,}")
        if name == "architectures" and value is not None and not _are_texts(value):
            raise ConfigError(f"{where}: architectures = {str(value)[:80]!r}: expected a list of names")
        if name == "model_type" and value is not None and not isinstance(value, str):
            raise ConfigError(f"{where}: model_type = {str(value)[:80]!r}: expected a name")
        if name in SIZES:
            for item in value if isinstance(value, list) else [value]:
                _check_size(item, name, where)
        elif name in ("id2label", "label2id") and isinstance(value, Mapping) and len(value) > MAX_LABELS:
            raise ConfigError(f"{where}: {name} holds {len(value):,} labels: expected at most {MAX_LABELS}")
        elif isinstance(value, Mapping):
            check_sizes(value, f"{where}: {name}" if where.endswith("config.json") else f"{where}.{name}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _check_size(value: Any, name: str, where: str) -> None:
    low, high = SIZES[name]
    if value is not None and not is_whole(value, low, high):
        raise ConfigError(f"{where}: {name} = {repr(value)[:60]}: expected a whole number from {low} to {high:,}")


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether a value is a whole number within bounds, and not true or false."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


@contextmanager
def reading_config(where: str) -> Iterator[None]:
    """Turn what transformers and arithmetic make of strange values in a ``config.json`` into one line.

    Raises:
        ConfigError: in place of any error that is not the project's own.
    """
    try:
        yield
    except TamError:
        raise
    except Exception as error:  # transformers checks fields with exceptions of its own
        problem = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError(f"{where} cannot be read as the configuration of a model: {problem}") from error
