"""The SigLIP encoder as the host uses it: all layers but the last, features before the final normalization.

Submodules carry the names of SigLIP checkpoints, so state-dict keys are the same whatever the installed
transformers calls its own classes, and nothing but parameters exists (no buffer that a load could leave unset).

Shapes: B frames, P patches, D hidden size, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

DROPPED_LAYERS = 1
"""Layers at the end of the pretrained encoder that the host throws away."""


class SiglipAttention(nn.Module):
    """Self-attention over the patches of a frame, through torch's fused kernels."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(size, size) for _ in range(4))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[B, P, D]`` → ``[B, P, D]``."""
        query, key, value = (
            layer(hidden_states).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class SiglipMlp(nn.Module):
    """The two-layer MLP that upcycling turns into a mixture."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        from transformers.activations import ACT2FN

        self.activation_fn = ACT2FN[config.hidden_act]
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[B, P, D]`` → ``[B, P, D]``."""
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class SiglipLayer(nn.Module):
    """Attention and MLP, each after a normalization and with a residual connection."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SiglipAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = SiglipMlp(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[B, P, D]`` → ``[B, P, D]``."""
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class SiglipEmbeddings(nn.Module):
    """Patches and their learned positions."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, size, kernel_size=patch, stride=patch)
        self.position_embedding = nn.Embedding((config.image_size // patch) ** 2, size)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """``[B, 3, S, S]`` → ``[B, P, D]``."""
        patches = self.patch_embedding(frames).flatten(2).transpose(1, 2)
        # Through the module, not its weight: a sharded weight is gathered when its module is called.
        return patches + self.position_embedding(torch.arange(patches.shape[1], device=patches.device))


class SiglipEncoder(nn.Module):
    """The layers one after another; transformers switches ``gradient_checkpointing`` by that name.

    A checkpointed layer is always run non-reentrant: the router losses of its mixture would lose their gradient
    otherwise.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.layers = nn.ModuleList(SiglipLayer(config) for _ in range(config.num_hidden_layers - DROPPED_LAYERS))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[B, P, D]`` → ``[B, P, D]``."""
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        run = _checkpointed if recompute else _plain
        for layer in self.layers:
            hidden_states = run(layer, hidden_states)
        return hidden_states


def _checkpointed(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    return checkpoint(layer, hidden_states, use_reentrant=False)


def _plain(layer: nn.Module, hidden_states: torch.Tensor) -> torch.Tensor:
    return layer(hidden_states)


class SiglipTransformer(nn.Module):
    """Embeddings and encoder. ``post_layernorm`` is kept for the sake of the checkpoint; the host never applies it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embeddings = SiglipEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """``[B, 3, S, S]`` → ``[B, P, D]``."""
        return self.encoder(self.embeddings(frames))


class SiglipVisionEncoder(nn.Module):
    """The outermost module, whose one child gives keys their ``vision_model.`` prefix."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.vision_model = SiglipTransformer(config)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """``[B, 3, S, S]`` → ``[B, P, D]``."""
        return self.vision_model(frames)
