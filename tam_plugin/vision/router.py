"""Router: which experts a token takes, and with which weights (Sec. 3.3, Eq. 2).

The paper writes W' = Softmax(TopK(W)), where TopK "sets all other elements to zero". Taken literally, a
softmax over those zeros would give every expert a share; a sparse gate needs the dropped logits to be minus
infinity. So the weights here are the softmax over the K kept logits: they are positive and sum to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from tam_plugin.config import MoeConfig


class Routing(NamedTuple):
    """A router's decision for N tokens, all in float32.

    Attributes:
        weights: ``[N, K]``, positive, each row sums to 1.
        indices: ``[N, K]`` int64, distinct experts in each row.
        logits: ``[N, E]``, noise included.
        probabilities: ``[N, E]``, softmax over all experts (what the balance loss reads).
    """

    weights: torch.Tensor
    indices: torch.Tensor
    logits: torch.Tensor
    probabilities: torch.Tensor


class Router(nn.Module):
    """Linear gate without bias, ``weight [E, D]``; its arithmetic is float32 under any autocast or parameter dtype.

    Modes: ``top_k`` takes the K largest logits; ``lowest_k`` the K smallest and ``random_k`` K distinct experts
    at random (the causal controls of Tab. 10). Randomness comes from torch's generator of the device, whose
    state checkpointing restores, so a recomputation makes the same choice. ``by_task`` takes the expert that the caller
    names for each token (Tab. 3c); the logits then serve statistics alone.
    """

    def __init__(self, hidden_size: int, config: MoeConfig, *, device=None, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, hidden_size, device=device, dtype=dtype))
        nn.init.normal_(self.weight, std=config.router_init_std)

    def forward(self, tokens: torch.Tensor, experts: torch.Tensor | None = None) -> Routing:
        """Route ``tokens [N, D]``; ``experts [N]`` are those that ``by_task`` takes."""
        dtype = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(tokens.to(dtype), self.weight.to(dtype))
            if self.training and self.config.router_noise_std > 0:
                logits = logits + torch.randn_like(logits) * self.config.router_noise_std
            indices = self._select(logits) if experts is None else experts.unsqueeze(-1)
            weights = logits.gather(-1, indices).softmax(dim=-1)
            return Routing(weights, indices, logits, logits.softmax(dim=-1))

    def _select(self, logits: torch.Tensor) -> torch.Tensor:
        mode = self.config.router_mode
        scores = torch.rand_like(logits) if mode == "random_k" else logits.detach()
        return scores.topk(self.config.top_k, dim=-1, largest=mode != "lowest_k").indices

    def extra_repr(self) -> str:
        return f"{self.config.router_mode}, top_k={self.config.top_k} of {self.config.num_experts}"
