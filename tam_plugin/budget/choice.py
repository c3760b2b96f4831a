"""Frames and stride of one decision, and how they are held to a context and to the baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from tam_plugin.budget.rules import Context
from tam_plugin.budget.visual_budget import newline_tokens
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
    """The choice at a coarser stride, or with fewer frames if none is coarse enough, so that it has no more tokens than
    the baseline; the baseline if not one frame fits.
    """
    limit = _tokens(baseline, context)
    for stride in (choice.stride, *(s for s in strides if s > choice.stride)):
        coarser = dataclasses.replace(choice, stride=stride)
        if _tokens(coarser, context) <= limit:
            return coarser
    frames = choice.num_frames * limit // _tokens(coarser, context)
    return dataclasses.replace(coarser, num_frames=frames) if frames else baseline


def _tokens(choice: Choice, context: Context) -> int:
    side = context.side(choice.stride)
    return choice.num_frames * side**2 + newline_tokens(choice.num_frames, side, context.newline_position)


def kept_strides(wanted: Sequence[int], strides: Sequence[int], where: str) -> list[int]:
    """Those of the strides that a rule asks for, for which a model has projectors."""
    kept = [stride for stride in wanted if stride in strides]
    if not kept:
        raise ConfigError(
            f"{where}.strides = {list(wanted)}: this model has projectors for {list(strides)}; allow "
            "one of them in the policy"
        )
    return kept
