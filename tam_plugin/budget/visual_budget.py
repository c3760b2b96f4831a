"""VisualBudget: how many frames a question buys, and how finely each is kept; and its token arithmetic (App. D.2)."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass

from tam_plugin.config import POOL_MODES
from tam_plugin.errors import InputError
from tam_plugin.taxonomy import AnyTask, TaskExtension, TaskType

SIGLIP_GRID = 27
"""Patches a side of SigLIP-so400m-patch14-384: floor(384 / 14)."""

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")
"""The hosts' ``mm_newline_position``: a newline token a row, a frame, a video, or none."""


def pooled_side(stride: int, grid: int = SIGLIP_GRID, pool_mode: str = "bilinear") -> int:
    """Tokens a side after pooling: ``ceil(grid / stride)`` if bilinear, the floor for ``average`` and ``max``.

    Raises:
        InputError: there is no such pooling mode.
    """
    if pool_mode not in POOL_MODES:
        raise InputError(f"pool_mode = {pool_mode!r}: expected one of {', '.join(POOL_MODES)}")
    return math.ceil(grid / stride) if pool_mode == "bilinear" else grid // stride


def newline_tokens(num_frames: int, side: int, position: str) -> int:
    """Newline tokens that a host adds to ``num_frames`` frames of ``side`` × ``side`` tokens.

    Raises:
        InputError: ``position`` is not one of :data:`NEWLINE_POSITIONS`.
    """
    counts = {"grid": num_frames * side, "frame": num_frames, "one_token": 1, "no_token": 0}
    if position not in counts:
        raise InputError(f"newline position {position!r}: expected one of {', '.join(NEWLINE_POSITIONS)}")
    return counts[position]


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
    """What one question buys.

    Attributes:
        num_frames: frames to sample, T.
        pool_stride: bilinear pooling stride of each frame's patch grid.
        tokens_per_frame: patch tokens a frame, the square of :func:`pooled_side`.
        visual_tokens: tokens that the video takes of the LLM's context, newline tokens included.
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

    @classmethod
    def of(
        cls,
        num_frames: int,
        pool_stride: int,
        *,
        grid: int = SIGLIP_GRID,
        pool_mode: str = "bilinear",
        newline_position: str = "grid",
        task: TaskType | None = None,
        confidence: float | None = None,
        fallback: str | None = None,
        extension_task: TaskExtension | None = None,
    ) -> VisualBudget:
        """A budget of ``num_frames`` at ``pool_stride`` with its tokens worked out.

        Raises:
            InputError: ``num_frames`` or ``pool_stride`` is not a whole number >= 1.
        """
        for name, value in (("num_frames", num_frames), ("pool_stride", pool_stride), ("grid", grid)):
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
                raise InputError(f"{name} = {value!r}: expected a whole number >= 1")
        num_frames, pool_stride = int(num_frames), int(pool_stride)
        side = pooled_side(pool_stride, grid, pool_mode)
        if side < 1:
            raise InputError(f"pool_stride = {pool_stride}: {pool_mode} pooling leaves nothing of a grid of {grid}")
        return cls(
            num_frames=num_frames,
            pool_stride=pool_stride,
            tokens_per_frame=side * side,
            visual_tokens=num_frames * side * side + newline_tokens(num_frames, side, newline_position),
            task=task,
            confidence=confidence,
            fallback=fallback,
            extension_task=extension_task,
        )
