"""Which questions about a clip go together: those that get the same budget, by the Inductor and the world's policy."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tam_plugin.budget import BudgetPolicy, FixedPolicy, TokenLayout, VisualBudget
from tam_plugin.eval.taskworld.questions import Question
from tam_plugin.eval.taskworld.world import GRID, Clip
from tam_plugin.inductor import Inductor
from tam_plugin.taxonomy import TaskDistribution, TaskType

POLICY_FILE = Path(__file__).with_name("policy.yaml")
FIXED = (8, 2)
"""Frames and stride of the baseline, as costly as every budget of the policy."""
DRAWS = {"resolution": 0.35, "balanced": 0.35, "frames": 0.3}
"""How often training asks about each of the policy's groups of task types."""
VIDEO_DRAWS = {"resolution": 0.15, "balanced": 0.45, "frames": 0.4}
"""The same, for a lesson of what single frames did not teach."""
REASONS_SHARE = 0.3
"""How often a single frame is asked about reasons, the others about what wants resolution."""
REVIEW = {"video": 0.3, "changes": 0.3, "still": 0.4}
"""How often a step of a review asks about videos, about what changed from first to last frame, and about one frame."""
MOST_OF_A_TASK = 6
"""Questions of one task type that training asks about one clip, at most."""


@functools.cache
def policy() -> BudgetPolicy:
    """The world's policy."""
    return BudgetPolicy.from_yaml(POLICY_FILE)


@functools.cache
def fixed() -> FixedPolicy:
    """The baseline's policy."""
    return FixedPolicy(*FIXED, TokenLayout(grid=GRID, newline_position="one_token"))


@functools.cache
def _inductor() -> Inductor:
    return Inductor.from_pretrained()


_DECIDED: dict[str, TaskDistribution] = {}


def decide(questions: Sequence[Question], duration_s: float) -> list[TaskDistribution]:
    """What the Inductor says of each question; each text is classified once."""
    inductor = _inductor()
    keys = [inductor.input_text(q.text, duration_s) for q in questions]
    new = {key: q for key, q in zip(keys, questions, strict=True) if key not in _DECIDED}
    if new:
        texts = [q.text for q in new.values()]
        for key, found in zip(new, inductor.classify_batch(texts, [duration_s] * len(texts)), strict=True):
            _DECIDED[key] = found
    return [_DECIDED[key] for key in keys]


def budgets(clip: Clip, questions: Sequence[Question], *, by_task: bool) -> list[VisualBudget]:
    """The budget of each question: the policy's, or the baseline's."""
    if not by_task:
        return [fixed().budget(None, clip.duration_s)] * len(questions)
    return [policy().budget(found, clip.duration_s) for found in decide(questions, clip.duration_s)]


def together(
    clip: Clip,
    questions: Sequence[Question],
    rng: np.random.Generator,
    *,
    by_task: bool,
    draws: dict[str, float] = DRAWS,
) -> tuple[VisualBudget, list[Question]]:
    """A budget and the questions to train on at it.

    The questions are the same whether the budget follows the task or not, so that arms differ in nothing else: a group
    of task types is drawn, and of it the questions that the policy gives the same budget.
    """
    decided = budgets(clip, questions, by_task=True)
    group = str(rng.choice(list(draws), p=list(draws.values())))
    wanted = [i for i, q in enumerate(questions) if policy().tasks[q.task] == group]
    kinds = [(decided[i].num_frames, decided[i].pool_stride) for i in wanted]
    most = max(sorted(set(kinds)), key=kinds.count)
    count: dict[int, int] = {}
    chosen = []
    for i, kind in zip(wanted, kinds, strict=True):
        task = questions[i].task.index
        if kind == most and count.get(task, 0) < MOST_OF_A_TASK:
            count[task] = count.get(task, 0) + 1
            chosen.append(i)
    budget = decided[chosen[0]] if by_task else fixed().budget(None, clip.duration_s)
    return budget, [questions[i] for i in chosen]


Shown = tuple[list[int], list[Question]]
"""Ticks of one or two frames, and the questions that they alone answer."""


def in_a_picture(clip: Clip, questions: Sequence[Question], rng: np.random.Generator) -> Shown:
    """What never changes, at any tick, or what stands there at the end."""
    if rng.random() < REASONS_SHARE:
        return [clip.num_ticks - 1], [q for q in questions if q.task is TaskType.REASONING]
    return _still(clip, questions, rng)


def in_review(clip: Clip, questions: Sequence[Question], rng: np.random.Generator, *, changes: bool) -> Shown:
    """What changed from the first tick to the last, or what never changes, at any."""
    if changes:
        return [0, clip.num_ticks - 1], [q for q in questions if q.task is TaskType.ACTION_RECOGNITION]
    return _still(clip, questions, rng)


def _still(clip: Clip, questions: Sequence[Question], rng: np.random.Generator) -> Shown:
    return [int(rng.integers(clip.num_ticks))], [q for q in questions if policy().tasks[q.task] == "resolution"]
