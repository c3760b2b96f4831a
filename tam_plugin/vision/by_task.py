"""The hard gate of the encoder by task type: every token of a video takes one expert (Tab. 3c)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.taxonomy import AnyTask
from tam_plugin.vision.moe_mlp import moe_layers


def expert_of_task(task: AnyTask, num_experts: int) -> int:
    """The expert of a task type: by its index, and from the first again where there are more types than experts.

    An extension follows the same rule: with eight experts, the ninth type shares the first expert with type 1.
    """
    return (task.index - 1) % num_experts


@contextmanager
def route_by_task(
    module: nn.Module, tasks: Sequence[AnyTask | None], frames_per_video: Sequence[int]
) -> Iterator[None]:
    """Tell layers with ``router_mode`` ``by_task`` which videos come next; other layers ignore it.

    The encoder runs over all of the frames inside, video after video, in as many calls as it likes.

    Args:
        module: holds the encoder.
        tasks: task type that decided, of each video.
        frames_per_video: frames of each video.

    Raises:
        InputError: a video without a task type, or counts that do not match.
        ConfigError: fewer frames came. A layer raises it where more come, or where a graph is recorded: a
            recomputation would route other frames.
    """
    layers = [layer for layer in moe_layers(module) if layer.config.router_mode == "by_task"]
    if len(tasks) != len(frames_per_video):
        raise InputError(f"{len(tasks)} tasks for {len(frames_per_video)} videos: expected one per video")
    try:
        for layer in layers:
            layer._frame_experts = _experts(tasks, frames_per_video, layer.config.num_experts)
        yield
        left = max((len(layer._frame_experts or ()) for layer in layers), default=0)
        if left:
            raise ConfigError(f"route_by_task: {left} of {sum(frames_per_video)} frames never reached the encoder")
    finally:
        for layer in layers:
            layer._frame_experts = None


def _experts(tasks: Sequence[AnyTask | None], frames: Sequence[int], num_experts: int) -> list[int]:
    experts: list[int] = []
    for video, (task, count) in enumerate(zip(tasks, frames, strict=True)):
        if task is None:
            raise InputError(
                f"video {video} has no task type: router_mode by_task needs the Inductor's prediction for it"
            )
        experts += [expert_of_task(task, num_experts)] * count
    return experts
