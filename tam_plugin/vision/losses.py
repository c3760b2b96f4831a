"""Auxiliary losses of a router (ST-MoE; α_b and α_z of Eq. 4)."""

from __future__ import annotations

import torch


def assignment_mask(indices: torch.Tensor, num_experts: int) -> torch.Tensor:
    """``indices [N, K]`` of distinct experts → float32 ``[N, E]``, 1 where a token takes an expert."""
    mask = torch.zeros(indices.shape[0], num_experts, device=indices.device)
    return mask.scatter(1, indices, 1.0)


def balance_loss(probabilities: torch.Tensor, mask: torch.Tensor, top_k: int) -> torch.Tensor:
    """E · Σ_e f_e · P_e: 1 when load and probabilities are uniform, E / K at collapse onto K experts.

    Args:
        probabilities: ``[N, E]`` softmax over all experts; P_e is its mean.
        mask: ``[N, E]`` from :func:`assignment_mask`; f_e is the fraction of the N·K assignments.
        top_k: K.

    Returns:
        A float32 scalar; its gradient flows through P only (f is a count).
    """
    load = mask.mean(dim=0) / top_k
    return probabilities.shape[-1] * (load * probabilities.mean(dim=0)).sum()


def z_loss(logits: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of logsumexp(logits ``[N, E]``)²; keeps logits small. A float32 scalar."""
    return logits.logsumexp(dim=-1).square().mean()
