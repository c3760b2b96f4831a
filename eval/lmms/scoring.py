"""Likelihood of continuations from hidden states, without logits for the whole prompt."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

IGNORE_INDEX = -100


def losses(
    hidden: torch.Tensor, labels: torch.Tensor, lm_head: Callable[[torch.Tensor], torch.Tensor], *, ending: int
) -> list[tuple[float, bool]]:
    """Mean loss of each row's labels, and whether greedy decoding would have written them.

    A prompt has tens of thousands of tokens and a vocabulary over a hundred thousand words, so logits are made for the
    labelled places alone.

    Args:
        hidden: ``[B, L, D]``, last hidden states.
        labels: ``[B, L]``, :data:`IGNORE_INDEX` where nothing is scored.
        lm_head: hidden states to logits.
        ending: labels at the end of each row that only end the turn; greediness does not look at them.
    """
    results = []
    for states, row in zip(hidden, labels, strict=True):
        places = (row != IGNORE_INDEX).nonzero().squeeze(1)
        wanted = row[places]
        logits = lm_head(states[places - 1]).float()
        said = wanted[: len(wanted) - ending] if ending else wanted
        greedy = bool((logits.argmax(dim=-1)[: len(said)] == said).all())
        results.append((float(cross_entropy(logits, wanted)), greedy))
    return results
