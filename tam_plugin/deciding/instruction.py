"""What the prompt tells the LLM about a video: its length and frame times, and the kind of question (Tab. 3a)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tam_plugin.budget import VisualBudget
from tam_plugin.config import InstructionConfig
from tam_plugin.errors import InputError
from tam_plugin.taxonomy import AnyTask, TaskExtension, TaskType
from tam_plugin.video.samplers import UNIFORM

if TYPE_CHECKING:
    from tam_plugin.video import SampledVideo

_LONGEST_S = 99_999.0


def compose_question(query: str, lines: Sequence[str] = (), options: Sequence[str] | None = None) -> str:
    """The user's turn: the lines that tell of the video, the question, its lettered options."""
    return "\n".join([*lines, query.strip(), *option_lines(options or ())])


def option_lines(options: Sequence[str]) -> list[str]:
    """Each option with its letter, as a model reads them; after Z come numbers."""
    return [f"{chr(ord('A') + i) if i < 26 else i + 1}. {text}" for i, text in enumerate(options)]


def instruction_lines(budget: VisualBudget, video: SampledVideo, config: InstructionConfig) -> list[str]:
    """The lines of a prompt that tell of the video, before the question.

    Args:
        budget: the task type that decided it is named.
        video: its duration, the true times of its frames, and the sampler that took them.
        config: which of the lines are wanted.
    """
    times = [float(t) for t in video.timestamps_s]
    return _lines(budget.decided_task, video.info.duration_s, times, video.sampler, config)


def longest_lines(num_frames: int, config: InstructionConfig, extensions: Sequence[TaskExtension] = ()) -> list[str]:
    """The longest that :func:`instruction_lines` can become with ``num_frames`` frames, to reserve room for them.

    Args:
        num_frames: frames, at most.
        config: which of the lines are wanted.
        extensions: task types beyond the eight that the Inductor knows.
    """
    longest = max((*TaskType, *extensions), key=lambda task: len(task_instruction(task)))
    return _lines(longest, _LONGEST_S, [_LONGEST_S] * num_frames, UNIFORM, config)


def _lines(
    task: AnyTask | None, duration_s: float, timestamps_s: Sequence[float], sampler: str, config: InstructionConfig
) -> list[str]:
    lines = []
    if config.time:
        lines.append(time_instruction(duration_s, timestamps_s, sampler))
    if config.task and task is not None:
        lines.append(task_instruction(task))
    return lines


def time_instruction(duration_s: float, timestamps_s: Sequence[float], sampler: str = UNIFORM) -> str:
    """The hosts' time instruction, word for word, so that upgraded checkpoints read what they were trained on.

    Args:
        duration_s: length of the video in seconds.
        timestamps_s: true presentation time of each frame, in seconds.
        sampler: how the frames were chosen; "uniformly" is left out for any other than ``uniform``.

    Raises:
        InputError: there is no frame.
    """
    if len(timestamps_s) == 0:
        raise InputError("timestamps_s is empty: a time instruction needs at least one frame")
    times = ",".join(f"{t:.2f}s" for t in timestamps_s)
    taken = "uniformly sampled" if sampler == UNIFORM else "sampled"
    return (
        f"The video lasts for {duration_s:.2f} seconds, and {len(timestamps_s)} frames are {taken} from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )


def task_instruction(task: AnyTask) -> str:
    """One line that names the kind of question to the LLM; an extension without a description gives its label alone."""
    description = " ".join(task.description.split())  # an extension's may come in several lines
    return f"This question is about {task.label}." + (f" Pay attention to: {description}" if description else "")
