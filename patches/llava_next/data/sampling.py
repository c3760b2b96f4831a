"""One sample of the host's training set: its question, its frames and times, and the instruction about them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from tam_plugin.budget import VisualBudget
from tam_plugin.config import InstructionConfig
from tam_plugin.deciding import instruction_lines
from tam_plugin.patches.llava_next.data.marks import with_own_mark_first
from tam_plugin.plans.keys import first_human_turn
from tam_plugin.plans.request import IMAGE_FPS

if TYPE_CHECKING:
    from tam_plugin.video import SampledVideo

FRAME_FOLDER_FPS = IMAGE_FPS
"""Frames per second that the host takes a folder of frames for."""
FRAME_FOLDER_MARK = "shareVideoGPTV"
"""The host reads a path with this in it as a folder of frames, by itself; such samples hide it from the host."""

_VIDEO: ContextVar[SampledVideo | None] = ContextVar("tam_sampled_video", default=None)


def current_video() -> SampledVideo | None:
    """The frames that the host's video reader is to give back now, or None for its own."""
    return _VIDEO.get()


@contextmanager
def reading(video: SampledVideo) -> Iterator[None]:
    """Let the host's video reader give back ``video`` inside."""
    token = _VIDEO.set(video)
    try:
        yield
    finally:
        _VIDEO.reset(token)


def with_instruction(
    conversations: Sequence[dict[str, Any]],
    budget: VisualBudget,
    video: SampledVideo,
    instruction: InstructionConfig,
) -> list[dict[str, Any]]:
    """The conversation with what the model is told of the video before the first question, as the host words it.

    Args:
        conversations: the host's turns; they are not changed.
        budget: names the task.
        video: duration and true times of the frames.
        instruction: what is told.
    """
    turns = copy.deepcopy(list(conversations))
    lines = instruction_lines(budget, video, instruction)
    turn = turns[first_human_turn(turns)]
    turn["value"] = with_own_mark_first(turn["value"], lines)
    return turns


def path_for_host(path: str) -> str:
    """A path that makes the host ask its video reader, which then gives back the frames set aside."""
    return os.devnull if FRAME_FOLDER_MARK in path else path
