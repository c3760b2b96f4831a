"""VisualBudget: how many frames a question gets, and at which resolution each is kept."""

from __future__ import annotations

import numbers
from dataclasses import dataclass

from tam_plugin.errors import InputError
from tam_plugin.taxonomy import AnyTask, TaskExtension, TaskType


def check_video_frames(video_frames: int | None) -> None:
    """Refuse a frame count that no video has.

    Raises:
        InputError: it is not a whole number >= 1 (None means "not known" and passes).
    """
    whole = isinstance(video_frames, numbers.Integral) and not isinstance(video_frames, bool)
    if video_frames is not None and (not whole or video_frames < 1):
        raise InputError(f"video_frames = {video_frames!r}: expected a whole number >= 1, or None")


@dataclass(frozen=True, kw_only=True)
class VisualBudget:
    """The budget of one question; made by :meth:`TokenLayout.budget <tam_plugin.budget.TokenLayout.budget>`.

    Attributes:
        num_frames: frames to sample, T.
        pool_stride: pooling stride of each frame's patch grid.
        tokens_per_frame: patch tokens per frame after pooling, a square.
        visual_tokens: tokens that the video takes of the LLM's context, newline tokens included
            (:meth:`TokenLayout.count <tam_plugin.budget.TokenLayout.count>`).
        task: the likeliest of the eight task types; None where nothing was said of the question.
        confidence: the Inductor's probability of :attr:`decided_task`; None where that is None.
        fallback: None, or why the plain rule was not followed.
        extension_task: the task type beyond the eight that the Inductor found; ``task`` then decided nothing.
    """

    num_frames: int
    pool_stride: int
    tokens_per_frame: int
    visual_tokens: int
    task: TaskType | None = None
    confidence: float | None = None
    fallback: str | None = None
    extension_task: TaskExtension | None = None

    @property
    def decided_task(self) -> AnyTask | None:
        """The task type that decided: the extension where there is one, else :attr:`task`."""
        return self.task if self.extension_task is None else self.extension_task

    @property
    def extension(self) -> str | None:
        """Label of the task type beyond the eight that decided; None where one of the eight did."""
        return None if self.extension_task is None else self.extension_task.label
