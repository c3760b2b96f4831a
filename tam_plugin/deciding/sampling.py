"""From a decision to frames: sampled by the budget, which is decided again where the video holds fewer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tam_plugin.deciding.decider import Decision
from tam_plugin.video.info import MAX_DAMAGED
from tam_plugin.video.samplers import UNIFORM
from tam_plugin.video.scaling import NATIVE_SIZE_LIMIT

if TYPE_CHECKING:
    from tam_plugin.taxonomy import TaskDistribution
    from tam_plugin.video import SampledVideo, Video


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How frames are taken, whatever the budget.

    Attributes:
        sampler: name of the sampler that chooses them.
        backend: video reader.
        size: pixels per side, at most.
        image_fps: frames per second that a directory of images stands for.
        max_damaged: share of the frames that may be damaged before the video is refused.
    """

    sampler: str = UNIFORM
    backend: str = "auto"
    size: int = NATIVE_SIZE_LIMIT
    image_fps: float = 1.0
    max_damaged: float = MAX_DAMAGED


def take(
    video: Video,
    num_frames: int,
    sampling: Sampling,
    *,
    query: str | None = None,
    distribution: TaskDistribution | None = None,
) -> SampledVideo:
    """Frames of an opened video.

    Args:
        video: the opened video.
        num_frames: frames, at most.
        sampling: how they are taken.
        query: the question, for samplers that choose frames by it.
        distribution: what the Inductor said of the question.

    Raises:
        InputError: they cannot be read, or too many of them are damaged.
    """
    return video.sample(
        num_frames,
        sampler=sampling.sampler,
        query=query,
        distribution=distribution,
        backend=sampling.backend,
        size=sampling.size,
        max_damaged=sampling.max_damaged,
    )


def sample(
    video: Video, decision: Decision, sampling: Sampling, taking: Callable[..., SampledVideo] = take
) -> tuple[Decision, SampledVideo]:
    """The frames of a decision, and the decision, made again if the video has fewer frames than its header says.

    A damaged file can hold fewer frames than its header says: the policy then decides by those that there are.

    Args:
        video: the opened video.
        decision: what was decided by its header.
        sampling: how frames are taken.
        taking: takes them as :func:`take` does; a cache around it, say.

    Raises:
        InputError: the frames cannot be read, or too many of them are damaged.
    """
    asked = {"query": decision.query, "distribution": decision.distribution}
    taken = taking(video, decision.budget.num_frames, sampling, **asked)
    if len(taken) < decision.budget.num_frames:
        budget = decision.policy.budget(decision.distribution, decision.duration_s, video_frames=len(taken))
        if budget.num_frames < len(taken):
            taken = taking(video, budget.num_frames, sampling, **asked)
            if len(taken) < budget.num_frames:  # a sampler may take fewer than it is asked for
                budget = decision.policy.layout.changed(budget, num_frames=len(taken))
        decision = dataclasses.replace(decision, budget=budget, duration_s=taken.info.duration_s)
    return decision, taken
