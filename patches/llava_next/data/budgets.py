"""Question and video → budget, for the samples of a training set."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import numpy as np

from tam_plugin.budget import TokenLayout, VisualBudget, read_policy
from tam_plugin.config import TamConfig
from tam_plugin.deciding import Decider
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.plans.table import FALLBACK, UNKNOWN, Planned, Plans

if TYPE_CHECKING:
    from tam_plugin.video import VideoInfo

PlanLookup = Callable[[Hashable], VisualBudget | None]


class BudgetPlanner:
    """Decides each sample's budget, for one host model: precomputed plans and a cache around a :class:`Decider`.

    The Inductor is loaded at the first question, once per process, and each sample is classified once per process.

    Args:
        config: the model's.
        layout: the model's token layout; its ``context_tokens`` are what the host keeps of a sequence.
        plan_lookup: precomputed budgets by sample id; what it does not know (None) is decided here.
        plans: those of ``tam plan-data``; where there are any, a sample without one is an error, and no Inductor is
            loaded.

    Raises:
        ConfigError: the policy takes strides that the model has no projector for, or not one frame fits.
    """

    def __init__(
        self,
        config: TamConfig,
        layout: TokenLayout,
        *,
        plan_lookup: PlanLookup | None = None,
        plans: Plans | None = None,
    ) -> None:
        self.layout = layout
        self.plan_lookup = plan_lookup
        self.plans = plans
        self._planned: dict[int, VisualBudget] = {}
        self.decider = Decider(read_policy(config.policy), layout=layout, inductor=config.inductor)
        self.policy = self.decider.adapted(0, 0)

    @property
    def max_tokens(self) -> int:
        """What the host keeps of a sequence, text and visual tokens together."""
        assert self.layout.context_tokens is not None
        return self.layout.context_tokens

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
            InputError: the question is empty, the duration is not a valid one, or the plans say that the sample
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
            decision = self.decider.decide(question, info.duration_s, video_frames=info.num_frames)
            budget = decision.budget
        self._planned[index] = budget
        return budget

    def _from_plans(self, plans: Plans, key: int, sample_id: Hashable, probe: Callable[[], VideoInfo]) -> VisualBudget:
        """The planned budget; where planning did not know the duration, decided now by what the Inductor said then."""
        planned = plans.planned(key)
        if planned is None and plans.is_bad(np.array([key], np.uint64))[0]:
            raise InputError(f"'tam plan-data' found that it cannot be used; the reason is in {plans.folder!r}")
        if planned is None:
            raise ConfigError(f"--tam_plans {plans.folder!r}: there is no plan for the sample with id {sample_id!r}")
        if not planned.flags & UNKNOWN:
            return self._as_budget(planned)
        info = probe()
        return self.policy.budget(
            plans.distribution(key, info.duration_s), info.duration_s, video_frames=info.num_frames
        )

    def _as_budget(self, planned: Planned) -> VisualBudget:
        return self.layout.budget(
            planned.num_frames,
            planned.stride,
            task=planned.task,
            confidence=planned.confidence,
            fallback="the policy did not follow its plain rule when this was planned"
            if planned.flags & FALLBACK
            else None,
            extension_task=planned.extension,
        )

    def fitted(self, budget: VisualBudget, text_tokens: int, tokens_per_time: int = 0) -> VisualBudget:
        """``budget``, reduced until it fits beside its text (:meth:`TokenLayout.fit`).

        Args:
            budget: the question's budget.
            text_tokens: tokens of the text that stay whatever the frames.
            tokens_per_time: tokens of the time instruction for each frame, at most.

        Raises:
            InputError: the text leaves no room for one frame.
        """
        strides = self.policy.strides_of(budget)
        try:
            return self.layout.fit(budget, text_tokens, tokens_per_time=tokens_per_time, strides=strides)
        except InputError as error:
            raise InputError(f"{error} (--model_max_length)") from error
