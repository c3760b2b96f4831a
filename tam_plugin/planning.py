"""Query and duration → visual budget, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from tam_plugin.budget import BudgetPolicy, VisualBudget

if TYPE_CHECKING:
    from tam_plugin.inductor import Inductor


@lru_cache(maxsize=1)
def _defaults() -> tuple[Inductor, BudgetPolicy]:
    from tam_plugin.inductor import Inductor

    return Inductor.from_pretrained(), BudgetPolicy.from_yaml()


def plan(query: str, duration_s: float | None, options: Sequence[str] | None = None) -> VisualBudget:
    """Budget of ``query`` about a video of ``duration_s`` seconds, by the embedded Inductor and the default policy.

    Args:
        query: the question.
        duration_s: length of the video in seconds; None if it is not known.
        options: answer options, if the question has any.

    Raises:
        InputError: the query is empty, or the duration is 0, negative or not finite.
    """
    inductor, policy = _defaults()
    return policy.budget(inductor.classify(query, duration_s=duration_s, options=options), duration_s)
