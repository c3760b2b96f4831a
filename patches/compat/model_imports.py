"""Functions that the host's Q-Former imports from ``transformers.modeling_utils``, which no longer has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tam_plugin.patches.compat._symptoms import lacks
from tam_plugin.patches.record import Patch


def find_pruneable_heads_and_indices(
    heads: list[int], n_heads: int, head_size: int, already_pruned_heads: set[int]
) -> tuple[set[int], Any]:
    """Heads still to prune and the indices ``[kept heads · head_size]`` of what stays, for pruning attention heads."""
    import torch

    pruned = set(heads) - already_pruned_heads
    mask = torch.ones(n_heads, head_size)
    for head in pruned:
        mask[head - sum(earlier < head for earlier in already_pruned_heads)] = 0
    return pruned, torch.arange(n_heads * head_size)[mask.flatten() == 1]


def _from_pytorch_utils(name: str) -> Callable[[Any], Any]:
    def wrap(_absent: Any) -> Any:
        import transformers.pytorch_utils

        return getattr(transformers.pytorch_utils, name, None) or globals()[name]

    return wrap


RECORDS: tuple[Patch, ...] = tuple(
    Patch(
        name=f"model_imports.{name}",
        target=f"transformers.modeling_utils:{name}",
        reason="the host's Q-Former imports it from here; without it no model of the host can be imported",
        wrap=_from_pytorch_utils(name),
        group="compat",
        may_be_absent=True,
        needed=lacks(name),
    )
    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")
)
