"""Sizes that decide what a language model costs, read from the fields of its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tam_plugin.config import short
from tam_plugin.errors import ConfigError

FAMILIES = ("qwen", "qwen2", "qwen_moe", "qwen2_moe", "qwen3", "qwen3_moe", "llama", "mistral", "mixtral", "gemma")
"""Decoders whose arithmetic this is: grouped attention, rotary positions, gated MLPs or mixtures of them."""


@dataclass(frozen=True, kw_only=True)
class LanguageShape:
    """A decoder with grouped-query attention and gated MLPs, dense or (in some layers) mixtures.

    Attributes:
        hidden_size: H.
        num_layers: M.
        num_heads: query heads.
        num_kv_heads: key and value heads.
        head_dim: width of a head.
        vocab_size: rows of embedding and output layer.
        intermediate_size: of the gated MLP of a dense layer.
        sparse_layers: layers whose MLP is a mixture.
        num_experts: experts of such a layer.
        top_k: of them, those that a token takes.
        expert_size: intermediate size of one.
        shared_size: intermediate size of the expert that every token takes, with its gate; 0 for none.
        qkv_bias: biases of the query, key and value projections.
        out_bias: bias of the output projection.
        qk_norm: norms of queries and keys.
        tied: output layer and embedding are one matrix.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    intermediate_size: int
    sparse_layers: int = 0
    num_experts: int = 1
    top_k: int = 1
    expert_size: int = 0
    shared_size: int = 0
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: bool = False
    tied: bool = False

    @classmethod
    def of(cls, fields: Mapping[str, Any], where: str) -> LanguageShape:
        """From the fields of a Qwen2, Qwen3, Llama, Mistral, Mixtral or Gemma configuration (or a mixture of them).

        Raises:
            ConfigError: another family, or a field is missing or no size.
        """
        kind = fields.get("model_type")
        family = str(kind).removeprefix("llava_")
        if family not in FAMILIES:
            raise ConfigError(
                f"{where}: model_type = {short(kind)} of the language model: operations can be counted for one of "
                f"{', '.join(FAMILIES)}"
            )
        hidden, heads = whole(fields, "hidden_size", where), whole(fields, "num_attention_heads", where)
        bias = bool(fields.get("attention_bias", False))
        return cls(
            hidden_size=hidden,
            num_layers=whole(fields, "num_hidden_layers", where),
            num_heads=heads,
            num_kv_heads=whole(fields, "num_key_value_heads", where) if fields.get("num_key_value_heads") else heads,
            head_dim=whole(fields, "head_dim", where) if fields.get("head_dim") else hidden // heads,
            vocab_size=whole(fields, "vocab_size", where),
            intermediate_size=whole(fields, "intermediate_size", where),
            qkv_bias=bool(fields.get("qkv_bias", family in ("qwen", "qwen2", "qwen_moe", "qwen2_moe"))) or bias,
            out_bias=bias,
            qk_norm=family.startswith("qwen3"),
            tied=bool(fields.get("tie_word_embeddings", family == "gemma")),
            **_mixture(fields, where),
        )


def _mixture(fields: Mapping[str, Any], where: str) -> dict[str, int]:
    """What of a language model's fields describes mixtures; nothing for a dense one."""
    experts = fields.get("num_experts") or fields.get("num_local_experts")
    if not experts:
        return {}
    step, dense = fields.get("decoder_sparse_step") or 1, fields.get("mlp_only_layers") or ()
    layers = range(whole(fields, "num_hidden_layers", where))
    size = "moe_intermediate_size" if "moe_intermediate_size" in fields else "intermediate_size"
    return {
        "sparse_layers": sum(layer not in dense and (layer + 1) % step == 0 for layer in layers),
        "num_experts": experts,
        "top_k": whole(fields, "num_experts_per_tok", where),
        "expert_size": whole(fields, size, where),
        "shared_size": fields.get("shared_expert_intermediate_size") or 0,
    }


def whole(fields: Mapping[str, Any], name: str, where: str) -> int:
    """A size out of a mapping of fields.

    Raises:
        ConfigError: it is missing, or no whole number >= 1.
    """
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{where}: {name} = {short(value)}: expected a whole number >= 1")
    return value
