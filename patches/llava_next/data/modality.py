"""The visual budget of one video on its way through the host: a modality that is "video" and knows its stride."""

from __future__ import annotations

from typing import Any

from tam_plugin.budget import VisualBudget
from tam_plugin.errors import InputError
from tam_plugin.taxonomy import AnyTask


class VideoModality(str):
    """The host's modality ``"video"`` with a budget.

    The host compares modalities with ``"video"`` and hands them through collator, workers, pinned memory and
    accelerate unchanged, so what a sample was planned for arrives at the model with it.

    Attributes:
        pool_stride: pooling stride of this video's frames.
        num_frames: frames that were planned; None if only the stride is known.
        task: the task type that decided the budget, one of the eight or an extension; or None.
        confidence: the Inductor's probability of ``task``, or None.
    """

    pool_stride: int
    num_frames: int | None
    task: AnyTask | None
    confidence: float | None

    def __new__(
        cls,
        pool_stride: int,
        num_frames: int | None = None,
        task: AnyTask | None = None,
        confidence: float | None = None,
    ) -> VideoModality:
        modality = super().__new__(cls, "video")
        modality.pool_stride = pool_stride
        modality.num_frames = num_frames
        modality.task = task
        modality.confidence = confidence
        return modality

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.pool_stride, self.num_frames, self.task, self.confidence)


def video(budget: VisualBudget | int) -> VideoModality:
    """What to pass in the host's ``modalities`` for a video of this budget.

    Example::

        model.generate(input_ids, images=[frames], modalities=[video(budget)])

    Args:
        budget: a :class:`VisualBudget`, or the pooling stride alone.

    Raises:
        InputError: neither of them.
    """
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 1:
        return VideoModality(budget)
    if not isinstance(budget, VisualBudget):
        raise InputError(f"video({budget!r}): expected a VisualBudget or a pooling stride >= 1")
    return VideoModality(budget.pool_stride, budget.num_frames, budget.decided_task, budget.confidence)


def host_modalities(modalities: Any) -> list[str]:
    """``modalities`` as the host takes them: a list of texts, budgets replaced by :func:`video`."""
    if isinstance(modalities, (str, VisualBudget)):
        modalities = [modalities]
    return [video(m) if isinstance(m, VisualBudget) else m for m in modalities]
