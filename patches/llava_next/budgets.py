"""Question and video → budget, for the samples of a training set."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

from tam_plugin.budget import BudgetPolicy, VisualBudget
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tam_plugin.inductor import Inductor

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
    ) -> None:
        self.max_tokens = max_tokens
        self.plan_lookup = plan_lookup
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
        self.policy = policy.for_host(**self._layout, **_within(policy, max_tokens))
        for name, group in self.policy.groups.items():
            missing = sorted(set(group.strides) - set(config.projector.strides))
            if missing:
                raise ConfigError(
                    f"groups.{name}.strides = {list(group.strides)}: the model has projectors for "
                    f"{list(config.projector.strides)} only; train with --tam_strides that hold {missing}, or change "
                    "the policy"
                )

    def budget(
        self, index: int, sample_id: Hashable, question: str, duration_s: float | None, video_frames: int | None
    ) -> VisualBudget:
        """The budget of a sample; the same answer for the same ``index`` (ids need not be unique in a set).

        Raises:
            InputError: the question is empty, or the duration is none that a video has.
        """
        known = self._planned.get(index)
        if known is not None:
            return known
        budget = self.plan_lookup(sample_id) if self.plan_lookup is not None else None
        if budget is None:
            distribution = self._load_inductor().classify(question, duration_s=duration_s)
            budget = self.policy.budget(distribution, duration_s, video_frames=video_frames)
        self._planned[index] = budget
        return budget

    def of(self, budget: VisualBudget, num_frames: int, pool_stride: int, reason: str | None = None) -> VisualBudget:
        """``budget`` with other frames or stride, its tokens worked out for this host."""
        return VisualBudget.of(
            num_frames,
            pool_stride,
            **self._layout,
            task=budget.task,
            confidence=budget.confidence,
            fallback="; ".join(filter(None, (budget.fallback, reason))) or None,
            extension=budget.extension,
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


def _within(policy: BudgetPolicy, max_tokens: int) -> dict[str, int]:
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
