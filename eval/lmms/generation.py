"""Arguments of generation from a task's, and what is counted of an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DEFAULT_NEW_TOKENS = 1024
"""Answer length of tasks that do not say theirs, as the baseline has it."""


def sampling_options(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``generate`` from a task's ``generation_kwargs``, read as the baseline reads them.

    It takes four of them: ``max_new_tokens``, ``temperature`` (greedy at 0, whatever ``do_sample`` says), ``top_p`` and
    ``num_beams``; ``until`` is left to the end-of-turn token.
    """
    temperature = generation.get("temperature") or 0
    options: dict[str, Any] = {
        "max_new_tokens": int(generation.get("max_new_tokens", DEFAULT_NEW_TOKENS)),
        "num_beams": int(generation.get("num_beams") or 1),
        "do_sample": temperature > 0,
    }
    if temperature > 0:
        options.update(temperature=float(temperature), top_p=generation.get("top_p"))
    return options


def written(ids: Sequence[int], ends: Sequence[int]) -> int:
    """Tokens of a generated row up to and including the first that ends it."""
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return stop + 1
