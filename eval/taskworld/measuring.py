"""Accuracy of a model on a split: each question alone, its four options scored by their likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tam_plugin.eval.taskworld.batches import Sample, encode, sample
from tam_plugin.eval.taskworld.budgets import budgets
from tam_plugin.eval.taskworld.model import tokenizer
from tam_plugin.eval.taskworld.questions import Question, ask
from tam_plugin.eval.taskworld.world import draw_clip

Form = Callable[[Question, str], tuple[list[int], int, int]]
"""Token ids of a question with an option; where what the model has to say begins, and where the option does."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A question of the split, and what the model chose.

    Attributes:
        seed: the clip's.
        duration_s: the clip's.
        task: index of the task type that the question was made as.
        kind: its kind.
        decided: index of the task type that the Inductor named; 0 under the baseline.
        num_frames: frames seen.
        pool_stride: at which stride.
        understood: whether the model would say what the question is about before it answers.
        right: whether it would, and the answer was the likeliest option.
        visual_tokens: tokens of the video.
    """

    seed: int
    duration_s: float
    task: int
    kind: str
    decided: int
    num_frames: int
    pool_stride: int
    understood: bool
    right: bool
    visual_tokens: int


def measure(
    model,
    seeds: Iterable[int],
    *,
    by_task: bool = True,
    split: str = "test",
    blind: bool = False,
    statements: bool = False,
) -> list[Scored]:
    """Ask one question of every kind about each clip.

    Args:
        model: a TAM OneVision model in evaluation mode.
        seeds: of the clips.
        by_task: whether frames and stride follow the question; else the baseline's.
        split: whose wordings.
        blind: show grey frames, to measure what words alone tell.
        statements: let the options complete a statement instead of answering the question, for a model that has had
            its first lessons alone.
    """
    form = _statement if statements else _row
    return [row for seed in seeds for row in _of_clip(model, seed, by_task, split, blind, form)]


def _of_clip(model, seed: int, by_task: bool, split: str, blind: bool, form: Form) -> Iterator[Scored]:
    clip = draw_clip(seed)
    rng = np.random.default_rng(seed + 1)
    questions = list({question.kind: question for question in ask(clip, rng, split)}.values())
    groups: dict[tuple[int, int], list[int]] = {}
    given = budgets(clip, questions, by_task=by_task)
    for i, budget in enumerate(given):
        groups.setdefault((budget.num_frames, budget.pool_stride), []).append(i)
    for members in groups.values():
        asked = [questions[i] for i in members]
        seen = sample(clip, given[members[0]], asked, rng)
        if blind:
            seen = Sample(torch.zeros_like(seen.frames), seen.stride, asked)
        for i, question, (understood, choice) in zip(members, asked, likeliest(model, seen, form), strict=True):
            yield Scored(
                seed=seed,
                duration_s=clip.duration_s,
                task=question.task.index,
                kind=question.kind,
                decided=0 if (task := given[i].task) is None else task.index,
                num_frames=len(seen.frames),
                pool_stride=seen.stride,
                understood=understood,
                right=understood and question.options[choice] == question.answer,
                visual_tokens=model.config.token_layout.count(len(seen.frames), seen.stride),
            )


def _row(question: Question, option: str) -> tuple[list[int], int, int]:
    """Question and answer behind the video."""
    asked = encode(question.text) + encode("<|im_end|><|im_start|>assistant\n")
    said = asked + encode(f" {question.subject}")
    return said + encode(f" {option}") + encode("<|im_end|>"), len(asked), len(said)


def _statement(question: Question, option: str) -> tuple[list[int], int, int]:
    """A statement that the option completes; the model does not have to find its subject."""
    said = encode("<|im_end|><|im_start|>assistant\n") + encode(f" {question.subject}")
    return said + encode(f" {option}"), len(said), len(said)


@torch.inference_mode()
def likeliest(model, seen: Sample, form: Form = _row) -> list[tuple[bool, int]]:
    """Whether each question's subject is what the model says first, and the likeliest option behind it.

    The video is read once for all of them.
    """
    config, device = model.config, next(model.parameters()).device
    visual = [config.video_token_id] * config.token_layout.count(len(seen.frames), seen.stride)
    prefix = encode("<|im_start|>user ") + visual + encode("\n")
    rows = [form(q, option) for q in seen.questions for option in q.options]
    longest = max(len(ids) for ids, _, _ in rows)
    first = model(
        input_ids=torch.tensor([prefix], device=device),
        attention_mask=torch.ones(1, len(prefix), dtype=torch.long, device=device),
        pixel_values_videos=seen.frames.to(device),
        video_num_frames=torch.tensor([len(seen.frames)]),
        video_pool_strides=torch.tensor([seen.stride]),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = first.past_key_values
    cache.batch_repeat_interleave(len(rows))
    ids = torch.tensor([row + [tokenizer().pad_token_id] * (longest - len(row)) for row, _, _ in rows], device=device)
    mask = torch.tensor(
        [[1] * (len(prefix) + len(row)) + [0] * (longest - len(row)) for row, _, _ in rows], device=device
    )
    logits = model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True).logits
    chosen = logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]  # [rows, L-1]
    place = torch.arange(1, longest, device=device)
    begins, starts, ends = (
        torch.tensor(at, device=device)[:, None]
        for at in ([b for _, b, _ in rows], [s for _, _, s in rows], [len(row) for row, _, _ in rows])
    )
    scores = torch.where((place >= starts) & (place < ends), chosen, 0.0).sum(1).view(len(seen.questions), -1)
    said = (logits[:, :-1].argmax(-1) == ids[:, 1:]) | (place < begins) | (place >= starts)
    understood = said.all(1).view(scores.shape)[:, 0]  # the subject is the same before every option
    return list(zip(understood.tolist(), scores.argmax(1).tolist(), strict=True))


def by_task_type(rows: Sequence[Scored]) -> dict[int, float]:
    """Accuracy of each task type; each kind of question counts the same within its type."""
    return {task: _mean_of_kinds([row for row in rows if row.task == task]) for task in sorted({r.task for r in rows})}


def _mean_of_kinds(rows: Sequence[Scored]) -> float:
    kinds = {row.kind for row in rows}
    return float(np.mean([np.mean([row.right for row in rows if row.kind == kind]) for kind in kinds]))
