"""Policy: the interface that maps a question and a video's length to a visual budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

from tam_plugin.budget.layout import TokenLayout
from tam_plugin.budget.visual_budget import VisualBudget
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.taxonomy import TaskDistribution


class Policy(Protocol):
    """Decides frames and stride. Derive from it, and define :meth:`budget`, :attr:`max_frames` and :meth:`to_dict`.

    Attributes:
        layout: the token layout that its budgets are counted in.
        reads_question: whether :meth:`budget` needs what the Inductor says. Without it ``distribution`` may be None,
            and a question that is there only labels the budget.
        visual_tokens: tokens that it leaves to a video, at most; None if it sets no limit.
    """

    layout: TokenLayout = TokenLayout()
    reads_question: bool = True
    visual_tokens: int | None = None

    @property
    def max_frames(self) -> int:
        """The most frames that it gives any video."""
        ...

    def budget(
        self, distribution: TaskDistribution | None, duration_s: float | None, *, video_frames: int | None = None
    ) -> VisualBudget:
        """The budget of a question.

        Args:
            distribution: what the Inductor says of it; None only where :attr:`reads_question` is false.
            duration_s: length of the video in seconds; None if it is not known.
            video_frames: frames that the video holds, if known; the budget never exceeds them.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values that tell it from other policies, and from which :func:`read_policy` makes it again."""
        ...

    def adapted(self, layout: TokenLayout, *, text_tokens: int = 0, output_tokens: int = 0) -> Policy:
        """This policy for a model.

        Args:
            layout: the model's.
            text_tokens: tokens of the prompt's words, at most, which the budget must leave room for.
            output_tokens: tokens of the answer, likewise.

        Raises:
            ConfigError: it cannot be followed with this model.
        """
        return _Held(self, layout, text_tokens + output_tokens)

    def strides_of(self, budget: VisualBudget) -> Sequence[int] | None:
        """Strides that one of its budgets may be moved to where the text is longer than expected; None for any."""
        return None

    def capped(self, max_frames: int) -> Policy:
        """This policy with at most ``max_frames`` frames for any video."""
        return _Capped(self, max_frames)

    def scaled(self, scale: float) -> Policy:
        """This policy with ``scale`` times the visual tokens (Tab. 13), if there is such a one.

        Raises:
            InputError: ``scale`` is not a positive number.
            ConfigError: there is none.
        """
        check_scale(scale)
        raise ConfigError(f"{type(self).__name__}: a policy of this kind cannot be scaled")


class _Wrapped(Policy):
    """A policy around another one."""

    def __init__(self, policy: Policy, layout: TokenLayout) -> None:
        self._policy = policy
        self.layout = layout
        self.reads_question = policy.reads_question
        self.visual_tokens = policy.visual_tokens

    @property
    def max_frames(self) -> int:
        return self._policy.max_frames

    def to_dict(self) -> dict[str, Any]:
        return self._policy.to_dict()

    def strides_of(self, budget: VisualBudget) -> Sequence[int] | None:
        return self._policy.strides_of(budget)


class _Held(_Wrapped):
    """A policy whose budgets are counted in a model's layout, fit its context and have no more frames than the video.

    They name the question's task type, for the prompt, the logs and experts by task, also where it decided nothing.
    """

    def __init__(self, policy: Policy, layout: TokenLayout, text_tokens: int) -> None:
        super().__init__(policy, layout)
        self._text_tokens = text_tokens
        if layout.context_tokens is not None:
            self.visual_tokens = layout.context_tokens - text_tokens

    def budget(
        self, distribution: TaskDistribution | None, duration_s: float | None, *, video_frames: int | None = None
    ) -> VisualBudget:
        wanted = self._policy.budget(distribution, duration_s, video_frames=video_frames)
        check_stride(wanted.pool_stride, self.layout)
        if wanted.task is None and distribution is not None:
            wanted = labelled(wanted, distribution)
        strides = self._policy.strides_of(wanted)
        try:
            counted = self.layout.changed(
                wanted, None if video_frames is None else min(wanted.num_frames, video_frames)
            )
            self.layout.fit(counted, 0, strides=strides)
        except InputError as error:
            raise ConfigError(str(error)) from error
        return self.layout.fit(counted, self._text_tokens, strides=strides)

    def adapted(self, layout: TokenLayout, *, text_tokens: int = 0, output_tokens: int = 0) -> Policy:
        return self._policy.adapted(layout, text_tokens=text_tokens, output_tokens=output_tokens)


class _Capped(_Wrapped):
    """A policy that gives no video more than so many frames."""

    def __init__(self, policy: Policy, max_frames: int) -> None:
        super().__init__(policy, policy.layout)
        self._most = min(max_frames, policy.max_frames)

    @property
    def max_frames(self) -> int:
        return self._most

    def budget(
        self, distribution: TaskDistribution | None, duration_s: float | None, *, video_frames: int | None = None
    ) -> VisualBudget:
        most = self._most if video_frames is None else min(self._most, video_frames)
        return self._policy.budget(distribution, duration_s, video_frames=most)

    def to_dict(self) -> dict[str, Any]:
        return {**self._policy.to_dict(), "max_frames": self._most}

    def adapted(self, layout: TokenLayout, *, text_tokens: int = 0, output_tokens: int = 0) -> Policy:
        adapted = self._policy.adapted(layout, text_tokens=text_tokens, output_tokens=output_tokens)
        return _Capped(adapted, self._most)


def labelled(budget: VisualBudget, distribution: TaskDistribution) -> VisualBudget:
    """A budget with the task type that the Inductor found, which did not decide it."""
    return dataclasses.replace(
        budget,
        task=distribution.task,
        confidence=distribution.decided_confidence,
        extension_task=distribution.extension,
    )


def check_scale(scale: float) -> None:
    """Refuse a scale that no budget has.

    Raises:
        InputError: it is not a positive number.
    """
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
        raise InputError(f"budget scale {scale!r}: expected a number > 0")


def check_stride(stride: int, layout: TokenLayout) -> None:
    """Refuse a stride that a model cannot follow.

    Raises:
        ConfigError: it has no projector for it.
    """
    if layout.strides is not None and stride not in layout.strides:
        raise ConfigError(f"stride {stride}: this model has projectors for {list(layout.strides)}")
