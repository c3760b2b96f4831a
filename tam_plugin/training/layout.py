"""The policy as a host follows it: its grid, pooling, newline tokens, and what it keeps of a sequence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.budget import BudgetPolicy, VisualBudget
from tam_plugin.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What of a model takes part in a budget; None leaves the policy's own value.

    Attributes:
        newline_position: where the host puts newline tokens.
        grid: patches a side of a frame.
        pool_mode: how frames are pooled.
        max_tokens: what the host keeps of a sequence, text and visual tokens together.
    """

    newline_position: str | None = None
    grid: int | None = None
    pool_mode: str | None = None
    max_tokens: int | None = None

    def policy(self, policy: BudgetPolicy) -> BudgetPolicy:
        """``policy`` for this layout.

        Raises:
            ConfigError: a value is out of range, or not one frame fits.
        """
        names = ("newline_position", "grid", "pool_mode")
        changes: dict[str, Any] = {n: getattr(self, n) for n in names if getattr(self, n) is not None}
        if self.max_tokens is not None:
            if self.max_tokens < 1:
                raise ConfigError(f"model_max_length = {self.max_tokens}: expected a whole number >= 1")
            changes |= within(policy, self.max_tokens)
        return policy.for_host(**changes)


def within(policy: BudgetPolicy, max_tokens: int) -> dict[str, int]:
    """Changes to the policy's context for a host that keeps ``max_tokens``: all of it shrinks in proportion."""
    context = policy.context
    if max_tokens >= context.max_context_tokens:
        return {}
    share = max_tokens / context.max_context_tokens
    return {
        "max_context_tokens": max_tokens,
        "max_output_tokens": int(context.max_output_tokens * share),
        "text_reserve_tokens": int(context.text_reserve_tokens * share),
    }


def token_layout(policy: BudgetPolicy) -> dict[str, Any]:
    """The arguments of :meth:`VisualBudget.of` that say how ``policy`` counts tokens."""
    context = policy.context
    return {
        "grid": context.grid,
        "pool_mode": context.pool_mode,
        "newline_position": context.newline_position,
    }


def visual_tokens(frames: NDArray[Any], strides: NDArray[Any], layout: Mapping[str, Any]) -> NDArray[np.int64]:
    """Visual tokens of each budget ``[N]``, newline tokens included; ``layout`` as :meth:`VisualBudget.of` takes it."""
    codes = frames.astype(np.int64) << 8 | strides
    found, places = np.unique(codes, return_inverse=True)
    tokens = [VisualBudget.of(int(c) >> 8, int(c) & 255, **layout).visual_tokens for c in found]
    return np.array(tokens, np.int64)[places.reshape(-1)] if tokens else np.zeros(0, np.int64)


def policy_values(policy: BudgetPolicy) -> dict[str, Any]:
    """The policy's mapping as JSON gives it back, so that two can be compared whatever file they came from."""
    return json.loads(json.dumps(policy.to_dict()))
