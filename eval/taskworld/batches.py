"""Clips and questions as model inputs: many turns about one clip in training, one question in measuring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tam_plugin.budget import VisualBudget
from tam_plugin.eval.taskworld.model import tokenizer
from tam_plugin.eval.taskworld.questions import Question
from tam_plugin.eval.taskworld.render import draw, encoder_input, ticks_at
from tam_plugin.eval.taskworld.world import Clip
from tam_plugin.patches.onevision.inputs import IGNORE_INDEX


@dataclass(frozen=True)
class Sample:
    """A clip seen at one budget, and what is asked about it.

    Attributes:
        frames: ``[T, 3, 72, 72]``.
        stride: pooling stride.
        questions: the turns, in order.
    """

    frames: torch.Tensor
    stride: int
    questions: Sequence[Question]


Form = Callable[[Sequence[Question], list[int]], tuple[list[int], list[int]]]
"""Token ids and labels of what is asked or stated behind a video's tokens."""


def sample(
    clip: Clip, budget: VisualBudget, questions: Sequence[Question], rng: np.random.Generator | None = None
) -> Sample:
    """Draw the budget's frames of a clip; with ``rng``, noise on them."""
    drawn = draw(clip, ticks_at(clip, budget.num_frames))
    return Sample(encoder_input(drawn, rng), budget.pool_stride, questions)


def pictures(clip: Clip, ticks: Sequence[int], questions: Sequence[Question], rng: np.random.Generator) -> Sample:
    """Draw some frames of a clip, to be seen in full, with noise on them."""
    return Sample(encoder_input(draw(clip, np.array(ticks)), rng), 1, questions)


def encode(text: str) -> list[int]:
    """Token ids of the chat form's own words."""
    return tokenizer()(text, add_special_tokens=False)["input_ids"]


def turns(questions: Sequence[Question], visual: list[int]) -> tuple[list[int], list[int]]:
    """Ids and labels of a conversation in the form that ``build_inputs`` gives a single turn; answers are learned."""
    ids: list[int] = []
    labels: list[int] = []
    for i, question in enumerate(questions):
        asked = encode("<|im_start|>user ") + (visual + encode("\n") if i == 0 else encode("\n"))
        asked += encode(question.text) + encode("<|im_end|><|im_start|>assistant\n")
        answer = encode(question.statement) + encode("<|im_end|>")
        ids += asked + answer
        labels += [IGNORE_INDEX] * len(asked) + answer
    return ids, labels


def collate(samples: Sequence[Sample], config, form: Form = turns) -> dict[str, torch.Tensor]:
    """A training batch of a TAM OneVision model; ``form`` makes ids and labels of a sample.

    Padding lies on the right, where causal attention never looks, so that there is no mask.
    """
    rows = []
    for one in samples:
        visual = [config.video_token_id] * config.token_layout.count(len(one.frames), one.stride)
        rows.append(form(one.questions, visual))
    longest = max(len(ids) for ids, _ in rows)
    pad = tokenizer().pad_token_id
    return {
        "input_ids": torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows]),
        "labels": torch.tensor([labels + [IGNORE_INDEX] * (longest - len(labels)) for _, labels in rows]),
        "pixel_values_videos": torch.cat([one.frames for one in samples]),
        "video_num_frames": torch.tensor([len(one.frames) for one in samples]),
        "video_pool_strides": torch.tensor([one.stride for one in samples]),
    }
