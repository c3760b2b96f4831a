"""A small BERT-style sentence classifier in plain torch: what the embedded Inductor is.

It reads the weights of any Hugging Face ``BertModel`` (absolute positions, GELU) under their own names and gives the
same hidden states; written out here so that loading needs neither the import time nor a version of transformers.

Shapes: B batch, N tokens, D hidden, H heads, L labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tam_plugin.bounds import SIZES, is_whole
from tam_plugin.config import short
from tam_plugin.errors import ConfigError


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder, named as in a BERT ``config.json``."""

    vocab_size: int = 30522
    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    num_labels: int = 8

    @classmethod
    def from_dict(cls, values: dict[str, Any], *, where: str) -> EncoderConfig:
        """Read the sizes out of a larger mapping.

        Raises:
            ConfigError: a size is missing or out of bounds, or the heads do not divide the hidden size.
        """
        sizes: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            value = values.get(name)
            if name == "layer_norm_eps":
                ok = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1
                expected = "a positive number under 1"
            else:
                ok, expected = is_whole(value, 1, SIZES[name][1]), f"a whole number from 1 to {SIZES[name][1]:,}"
            if not ok:
                raise ConfigError(f"{where}: {name} must be {expected}, got {short(value)}")
            sizes[name] = value
        config = cls(**sizes)
        if config.hidden_size % config.num_attention_heads:
            raise ConfigError(
                f"{where}: hidden_size {config.hidden_size} is no multiple of num_attention_heads "
                f"{config.num_attention_heads}"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """A JSON-safe mapping of the sizes."""
        return asdict(self)


class EncoderLayer(nn.Module):
    """Post-norm self-attention and MLP, as in BERT."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.num_heads = config.num_attention_heads
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.attention_out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.mlp_in = nn.Linear(hidden, inner)
        self.mlp_out = nn.Linear(inner, hidden)
        self.mlp_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)

    def forward(self, x_BND: Tensor, mask_B11N: Tensor | None) -> Tensor:
        """One layer over ``[B, N, D]``; the mask is True where a token may be attended to."""
        batch, length, hidden = x_BND.shape
        qkv = self.qkv(x_BND).view(batch, length, 3, self.num_heads, hidden // self.num_heads)
        q_BHNd, k_BHNd, v_BHNd = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd, attn_mask=mask_B11N)
        mixed_BND = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, hidden))
        x_BND = self.attention_norm(x_BND + mixed_BND)
        return self.mlp_norm(x_BND + self.mlp_out(F.gelu(self.mlp_in(x_BND))))


def _embedding(rows: int, width: int) -> nn.Embedding:
    """A new table ``[rows, width]``; nn.Embedding's own initialisation imports torch._dynamo on the meta device."""
    return nn.Embedding.from_pretrained(torch.randn(rows, width), freeze=False)


class SentenceClassifier(nn.Module):
    """Encoder, mean over the tokens, linear head.

    Args:
        config: sizes.
        dropout: probability on the pooled vector, in training mode only. The layers have none: on a CPU it costs more
            than the matrix products, and training masks whole tokens instead.
    """

    def __init__(self, config: EncoderConfig, dropout: float = 0.1) -> None:
        super().__init__()
        self.config = config
        self.dropout = dropout
        self.word_embeddings = _embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = _embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = _embedding(config.type_vocab_size, config.hidden_size)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.head = nn.Linear(config.hidden_size, config.num_labels)

    def encode(self, ids_BN: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Hidden states ``[B, N, D]`` of token ids ``[B, N]``; ``mask_BN`` is True on real tokens."""
        positions = self.position_embeddings.weight[: ids_BN.shape[1]]
        x_BND = self.word_embeddings(ids_BN) + self.token_type_embeddings.weight[0] + positions
        x_BND = self.embedding_norm(x_BND)
        mask_B11N = None if mask_BN is None else mask_BN[:, None, None, :]
        for layer in self.layers:
            x_BND = layer(x_BND, mask_B11N)
        return x_BND

    def forward(self, ids_BN: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Logits ``[B, L]`` of token ids ``[B, N]``; without a mask every token counts."""
        x_BND = self.encode(ids_BN, mask_BN)
        if mask_BN is None:
            pooled_BD = x_BND.mean(dim=1)
        else:
            weight_BN1 = mask_BN[:, :, None].to(x_BND.dtype)
            pooled_BD = (x_BND * weight_BN1).sum(dim=1) / weight_BN1.sum(dim=1)
        return self.head(F.dropout(pooled_BD, self.dropout if self.training else 0.0))

    def load_bert(self, state: dict[str, Tensor]) -> None:
        """Copy the weights of a Hugging Face ``BertModel`` (its pooler is left out; the head keeps its values).

        Raises:
            ConfigError: a weight is missing or has another shape than the configuration says.
        """
        state = {name.removeprefix("bert."): tensor for name, tensor in state.items()}
        own = self.state_dict()
        for name in [n for n in own if not n.startswith("head.")]:
            try:
                value = torch.cat([state[source] for source in _bert_names(name)])
            except KeyError as error:
                raise ConfigError(
                    f"the base checkpoint has no weight {error.args[0]!r}; expected a BERT model"
                ) from None
            if value.shape != own[name].shape:
                raise ConfigError(f"the base's weight {name} is {tuple(value.shape)}, not {tuple(own[name].shape)}")
            own[name].copy_(value)


_BERT_LAYER_PARTS = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "mlp_in": ("intermediate.dense",),
    "mlp_out": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}


def _bert_names(name: str) -> list[str]:
    """The weights of a ``BertModel`` that make up the weight ``name`` of a :class:`SentenceClassifier`."""
    parts = name.split(".")
    if parts[0] == "layers":
        _, layer, part, kind = parts
        return [f"encoder.layer.{layer}.{source}.{kind}" for source in _BERT_LAYER_PARTS[part]]
    if parts[0] == "embedding_norm":
        return [f"embeddings.LayerNorm.{parts[1]}"]
    return [f"embeddings.{name}"]
