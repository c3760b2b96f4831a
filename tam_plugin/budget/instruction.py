"""What the prompt tells the LLM about the video: its length and frame times, and the kind of question (Tab. 3a)."""

from __future__ import annotations

from collections.abc import Sequence

from tam_plugin.errors import InputError
from tam_plugin.taxonomy import AnyTask


def time_instruction(duration_s: float, timestamps_s: Sequence[float]) -> str:
    """The hosts' time instruction, word for word, so that upgraded checkpoints read what they were trained on.

    Args:
        duration_s: length of the video in seconds.
        timestamps_s: true presentation time of each frame, in seconds.

    Raises:
        InputError: there is no frame.
    """
    if len(timestamps_s) == 0:
        raise InputError("timestamps_s is empty: a time instruction needs at least one frame")
    times = ",".join(f"{t:.2f}s" for t in timestamps_s)
    return (
        f"The video lasts for {duration_s:.2f} seconds, and {len(timestamps_s)} frames are uniformly sampled from it. "
        f"These frames are located at {times}.Please answer the following questions related to this video."
    )


def task_instruction(task: AnyTask) -> str:
    """One line that names the kind of question to the LLM; an extension without a description gives its label alone."""
    description = " ".join(task.description.split())  # an extension's may come in several lines
    return f"This question is about {task.label}." + (f" Pay attention to: {description}" if description else "")
