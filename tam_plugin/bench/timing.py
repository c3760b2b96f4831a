"""Interleaved timing: competing ways of the same job, round by round, so that drift hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def compare(
    ways: dict[str, Callable[[], object]], rounds: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds by ``clock`` of each way over ``rounds`` interleaved rounds, after one uncounted warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for counted in [False] + [True] * rounds:
        for name, way in ways.items():
            start = clock()
            way()
            elapsed = clock() - start
            if counted:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def rows(medians: dict[str, float], host: str) -> list[dict[str, Any]]:
    """One row per way: ``name``, median ``seconds``, and ``ratio`` (the host's seconds over this way's)."""
    return [{"name": name, "seconds": s, "ratio": medians[host] / s} for name, s in medians.items()]
