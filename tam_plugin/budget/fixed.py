"""The baseline behind the policy's interface: one budget for every question and every video."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from tam_plugin.budget.visual_budget import VisualBudget, check_video_frames
from tam_plugin.errors import ConfigError
from tam_plugin.taxonomy import TaskDistribution, check_duration_s


class FixedPolicy:
    """The same budget always, behind the interface of :class:`BudgetPolicy` (the hosts' own behaviour)."""

    def __init__(self, num_frames: int, pool_stride: int, **layout: Any) -> None:
        self._budget = VisualBudget.of(num_frames, pool_stride, **layout)
        self._layout = layout

    @property
    def num_frames(self) -> int:
        """Frames of every video, at most."""
        return self._budget.num_frames

    def for_host(self, **changes: Any) -> FixedPolicy:
        """A copy for another grid, pooling mode or newline layout; a context length does not change it."""
        layout: dict[str, Any] = {
            name: changes[name] for name in ("grid", "pool_mode", "newline_position") if name in changes
        }
        merged = {**self._layout, **layout}
        return FixedPolicy(self._budget.num_frames, self._budget.pool_stride, **merged)

    def for_strides(self, strides: Sequence[int]) -> FixedPolicy:
        """This policy, if a model that has projectors for ``strides`` can follow it.

        Raises:
            ConfigError: its stride is not among them.
        """
        if self._budget.pool_stride not in strides:
            raise ConfigError(f"fixed stride {self._budget.pool_stride}: this model has projectors for {list(strides)}")
        return self

    def budget(
        self,
        distribution: TaskDistribution | None = None,
        duration_s: float | None = None,
        *,
        video_frames: int | None = None,
    ) -> VisualBudget:
        """The fixed budget; ``distribution`` only labels it, ``video_frames`` bounds it.

        Raises:
            InputError: ``duration_s`` is 0, negative or not finite, or ``video_frames`` is under 1.
        """
        check_duration_s(duration_s)
        check_video_frames(video_frames)
        budget = self._budget
        if video_frames is not None and video_frames < budget.num_frames:
            budget = VisualBudget.of(video_frames, budget.pool_stride, **self._layout)
        if distribution is None:
            return budget
        return dataclasses.replace(
            budget,
            task=distribution.task,
            confidence=distribution.decided_confidence,
            extension_task=distribution.extension,
        )
