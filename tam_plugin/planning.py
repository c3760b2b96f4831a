"""Query and duration → visual budget, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tam_plugin.budget import VisualBudget, read_policy
from tam_plugin.deciding import Decider


@lru_cache(maxsize=1)
def _default() -> Decider:
    return Decider(read_policy(None))


def plan(query: str, duration_s: float | None, options: Sequence[str] | None = None) -> VisualBudget:
    """Budget of ``query`` about a video of ``duration_s`` seconds, by the embedded Inductor and the default policy.

    Args:
        query: the question.
        duration_s: length of the video in seconds; None if it is not known.
        options: answer options, if the question has any.

    Raises:
        InputError: the query is empty, or the duration is 0, negative or not finite.
    """
    return _default().decide(query, duration_s, options=options).budget
