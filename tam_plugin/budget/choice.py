"""Frames and stride of one decision, and how they are held to a context and to the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from tam_plugin.budget.rules import Context
from tam_plugin.errors import ConfigError


@dataclass(frozen=True)
class Choice:
    """Frames and stride of one decision, with the reason when the context cut the frames."""

    num_frames: int
    stride: int
    cut: str | None = None


def fit(num_frames: int, strides: tuple[int, ...], context: Context) -> Choice:
    """Frames first: the finest stride at which they fit the context; fewer frames only if they fit at none."""
    for stride in strides:
        if num_frames <= context.capacity(stride):
            return Choice(num_frames, stride)
    fits = context.capacity(strides[-1])
    cut = f"{num_frames} frames do not fit {context.visual_tokens} tokens at stride {strides[-1]}: {fits} taken"
    return Choice(fits, strides[-1], cut)


def no_more(choice: Choice, baseline: Choice, strides: tuple[int, ...], context: Context) -> Choice:
    """The choice, limited to the baseline's number of tokens: at a coarser stride, or with fewer frames if no stride is
    coarse enough; the baseline itself if not one frame fits.
    """
    limit = context.layout.count(baseline.num_frames, baseline.stride)
    for stride in (choice.stride, *(s for s in strides if s > choice.stride)):
        coarser = dataclasses.replace(choice, stride=stride)
        if context.layout.count(coarser.num_frames, coarser.stride) <= limit:
            return coarser
    frames = context.layout.frames_within(limit, coarser.stride)
    return dataclasses.replace(coarser, num_frames=frames) if frames else baseline


def kept_strides(wanted: Sequence[int], strides: Sequence[int], where: str, *, all_of_them: bool) -> list[int]:
    """The strides of a rule that a model has projectors for.

    Args:
        wanted: the rule's.
        strides: the model's.
        where: the rule, for messages.
        all_of_them: refuse a rule of which one is missing, too.

    Raises:
        ConfigError: too few are left.
    """
    kept = [stride for stride in wanted if stride in strides]
    if not kept or (all_of_them and len(kept) < len(wanted)):
        raise ConfigError(
            f"{where}.strides = {list(wanted)}: the model has projectors for {list(strides)} only; change the policy, "
            f"or train a model with --tam_strides that hold {[s for s in wanted if s not in strides]}"
        )
    return kept
