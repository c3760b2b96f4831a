"""The prompt's words about the video."""

import pytest

from tam_plugin.deciding.instruction import task_instruction, time_instruction
from tam_plugin.errors import InputError
from tam_plugin.taxonomy import TaskType


def test_time_instruction_is_the_hosts_wording():
    # What LLaVA-NeXT's training code builds (llava/train/train.py, "add_time_instruction").
    video_time, frame_time, num_frames_to_sample = 12.5, "0.00s,6.24s,12.48s", 3
    host = (
        f"The video lasts for {video_time:.2f} seconds, and {num_frames_to_sample} frames are uniformly sampled "
        f"from it. These frames are located at {frame_time}.Please answer the following questions related to this "
        "video."
    )
    assert time_instruction(12.5, [0.0, 6.24, 12.48]) == host


def test_time_instruction_needs_a_frame():
    with pytest.raises(InputError, match="at least one frame"):
        time_instruction(1.0, [])


@pytest.mark.parametrize("task", list(TaskType))
def test_task_instruction_names_the_task(task):
    assert task.label in task_instruction(task) and task.description in task_instruction(task)
