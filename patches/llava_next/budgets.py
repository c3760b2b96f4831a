"""Question and video → budget, for the samples of a training set."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tam_plugin.budget import BudgetPolicy, VisualBudget
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.training.layout import Layout
from tam_plugin.training.table import FALLBACK, UNKNOWN, Planned, Plans

if TYPE_CHECKING:
    from tam_plugin.inductor import Inductor
    from tam_plugin.video import VideoInfo

PlanLookup = Callable[[Hashable], VisualBudget | None]


class BudgetPlanner:
    """Decides each sample's budget by the Inductor and the policy, for one host model.

    The Inductor is loaded at the first question, once a process, and each sample is classified once a process.

    Args:
        config: the model's.
        newline_position: where the host puts newline tokens.
        grid: patches a side of a frame.
        max_tokens: what the host keeps of a sequence, text and visual tokens together.
        plan_lookup: precomputed budgets by sample id; what it does not know (None) is decided here.
        plans: those of ``tam plan-data``; where there are any, a sample without one is an error, and no Inductor is
            loaded.

    Raises:
        ConfigError: the policy takes strides that the model has no projector for, or not one frame fits.
    """

    def __init__(
        self,
        config: TamConfig,
        *,
        newline_position: str,
        grid: int,
        max_tokens: int,
        plan_lookup: PlanLookup | None = None,
        plans: Plans | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.plan_lookup = plan_lookup
        self.plans = plans
        self._inductor_name = config.inductor
        self._inductor: Inductor | None = None
        self._planned: dict[int, VisualBudget] = {}
        self._layout: dict[str, Any] = {
            "grid": grid,
            "pool_mode": config.projector.pool_mode,
            "newline_position": newline_position,
        }
        self._model_strides = config.projector.strides
        policy = BudgetPolicy.from_config(config.policy)
        self.policy = Layout(**self._layout, max_tokens=max_tokens).policy(policy)
        for name, group in self.policy.groups.items():
            missing = sorted(set(group.strides) - set(config.projector.strides))
            if missing:
                raise ConfigError(
                    f"groups.{name}.strides = {list(group.strides)}: the model has projectors for "
                    f"{list(config.projector.strides)} only; train with --tam_strides that hold {missing}, or change "
                    "the policy"
                )

    def budget(
        self,
        index: int,
        sample_id: Hashable,
        question: str,
        probe: Callable[[], VideoInfo],
        key: int | None = None,
    ) -> VisualBudget:
        """The budget of a sample; the same answer for the same ``index`` (ids need not be unique in a set).

        Args:
            index: the sample's place in the set.
            sample_id: what ``plan_lookup`` knows it by.
            question: the first human turn.
            probe: reads length and frames of its video; called only where they decide, so that planned samples open
                their video once.
            key: what ``plans`` know it by.

        Raises:
            InputError: the question is empty, the duration is none that a video has, or the plans say that the sample
                cannot be used.
            ConfigError: there are plans, but none for this sample.
        """
        known = self._planned.get(index)
        if known is not None:
            return known
        budget = self.plan_lookup(sample_id) if self.plan_lookup is not None else None
        if budget is None and self.plans is not None and key is not None:
            budget = self._from_plans(self.plans, key, sample_id, probe)
        if budget is None:
            info = probe()
            distribution = self._load_inductor().classify(question, duration_s=info.duration_s)
            budget = self.policy.budget(distribution, info.duration_s, video_frames=info.num_frames)
        self._planned[index] = budget
        return budget

    def _from_plans(self, plans: Plans, key: int, sample_id: Hashable, probe: Callable[[], VideoInfo]) -> VisualBudget:
        """The planned budget; where planning did not know the duration, decided now by what the Inductor said then."""
        planned = plans.planned(key)
        if planned is None and plans.is_bad(np.array([key], np.uint64))[0]:
            raise InputError(f"'tam plan-data' found that it cannot be used; the reason is in {plans.folder!r}")
        if planned is None:
            raise ConfigError(f"--tam_plans {plans.folder!r}: no plan for the sample with id {sample_id!r}")
        if not planned.flags & UNKNOWN:
            return self._as_budget(planned)
        info = probe()
        return self.policy.budget(
            plans.distribution(key, info.duration_s), info.duration_s, video_frames=info.num_frames
        )

    def _as_budget(self, planned: Planned) -> VisualBudget:
        return VisualBudget.of(
            planned.num_frames,
            planned.stride,
            **self._layout,
            task=planned.task,
            confidence=planned.confidence,
            fallback="the policy did not follow its plain rule when this was planned"
            if planned.flags & FALLBACK
            else None,
            extension_task=planned.extension,
        )

    @property
    def layout(self) -> dict[str, Any]:
        """Grid, pooling and newline tokens, as :meth:`VisualBudget.of` takes them."""
        return dict(self._layout)

    def of(self, budget: VisualBudget, num_frames: int, pool_stride: int, reason: str | None = None) -> VisualBudget:
        """``budget`` with other frames or stride, its tokens worked out for this host."""
        return VisualBudget.of(
            num_frames,
            pool_stride,
            **self._layout,
            task=budget.task,
            confidence=budget.confidence,
            fallback="; ".join(filter(None, (budget.fallback, reason))) or None,
            extension_task=budget.extension_task,
        )

    def fitted(self, budget: VisualBudget, fixed_text_tokens: int, time_tokens_per_frame: int = 0) -> VisualBudget:
        """``budget``, or what of it fits beside its text: coarser first, then fewer frames.

        Args:
            budget: what the question bought.
            fixed_text_tokens: tokens of the text that stay whatever the frames.
            time_tokens_per_frame: tokens of the time instruction for each frame, at most.

        Raises:
            InputError: the text leaves no room for one frame.
        """

        def fits(candidate: VisualBudget) -> bool:
            text_tokens = fixed_text_tokens + time_tokens_per_frame * candidate.num_frames
            return candidate.visual_tokens + text_tokens <= self.max_tokens

        if fits(budget):
            return budget
        strides = [s for s in self._strides(budget) if s >= budget.pool_stride] or [budget.pool_stride]
        reason = f"{fixed_text_tokens} tokens of text beside a video in a context of {self.max_tokens}"
        for stride in strides:
            coarser = self.of(budget, budget.num_frames, stride, reason)
            if fits(coarser):
                return coarser
        for num_frames in range(budget.num_frames - 1, 0, -1):
            fewer = self.of(budget, num_frames, strides[-1], reason)
            if fits(fewer):
                return fewer
        raise InputError(f"{reason}: not one frame fits; shorten the text or raise --model_max_length")

    def _strides(self, budget: VisualBudget) -> Sequence[int]:
        if budget.task is None or budget.extension is not None:
            return self._model_strides
        return self.policy.groups[self.policy.tasks[budget.task]].strides

    def _load_inductor(self) -> Inductor:
        if self._inductor is None:
            from tam_plugin.inductor import Inductor

            try:
                self._inductor = Inductor.from_pretrained(self._inductor_name)
            except InputError as error:  # no other sample would mend it
                raise ConfigError(str(error)) from error
        return self._inductor

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_inductor": None}
