"""Case: everything that the page of one question shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tam_plugin.budget import VisualBudget
    from tam_plugin.taxonomy import TaskDistribution
    from tam_plugin.video import SampledVideo


@dataclass(frozen=True, kw_only=True)
class Case:
    """One question about one video, answered.

    Attributes:
        query: the question.
        options: its answer options, if it has any.
        distribution: what the Inductor said of it.
        budget: what the policy took.
        baseline: what the fixed policy would have taken of the same video, in the same model's tokens.
        context_tokens: visual tokens that the model's context leaves; None if there is no limit.
        video: the frames that the model saw.
        expert_load: ``[L][E]``, fraction of each mixture layer's assignments that every expert took in this forward;
            None for a model without mixture layers.
        expert_weight: ``[L][E]``, mean weight of an expert over the tokens that took it; None likewise.
        top_k: experts per token.
        prompt: the text that the language model read, visual tokens named.
        prompt_tokens: its tokens, visual ones included.
        answer: what the model said; None where it cannot know the video, of which ``notice`` tells.
        model: its name or path; None for the demonstration model.
        notice: what a reader must know about model and video.
        untrained: whether its gates were never trained.
    """

    query: str
    options: Sequence[str] | None = None
    distribution: TaskDistribution
    budget: VisualBudget
    baseline: VisualBudget
    context_tokens: int | None = None
    video: SampledVideo
    expert_load: Sequence[Sequence[float]] | None = None
    expert_weight: Sequence[Sequence[float]] | None = None
    top_k: int = 2
    prompt: str
    prompt_tokens: int
    answer: str | None
    model: str | None = None
    notice: str | None = None
    untrained: bool = False
