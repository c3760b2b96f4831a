"""Training in stages by optimizer steps, resumable: the same clips and questions in every arm."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tam_plugin.errors import InputError
from tam_plugin.eval.taskworld.batches import Sample, collate, pictures, sample, turns
from tam_plugin.eval.taskworld.budgets import DRAWS, REVIEW, VIDEO_DRAWS, in_a_picture, in_review, together
from tam_plugin.eval.taskworld.questions import ask, with_options
from tam_plugin.eval.taskworld.statements import stated
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.storage import Journal, read_journal, replace_file, replace_records

FORMS = {
    "questions": turns,
    "statements": stated,
    "video statements": stated,
    "pictures": stated,
    "picture questions": turns,
    "review": turns,
}
OPTIONS_SHOWN = 0.15
"""Share of steps of questions that show them with their options; the others are answered freely."""
MOST_TURNS, MOST_TURNS_WITH_OPTIONS = 6, 3
"""Questions about a clip, at most: rows of nearly one length leave little padding."""
LOG_EVERY = 10
SAVE_EVERY = 100
FIRST_SEED = 10**6
"""Training clips' seeds begin here; those of the test split are below."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training.

    Attributes:
        name: names its files.
        steps: optimizer steps.
        by_task: whether frames and stride follow the question; None: a coin decides for each clip.
        form: ``questions``; ``statements``; ``video statements``, mostly of what needs several frames; ``pictures`` and
            ``picture questions``, statements and questions about one frame at stride 1, for a model that cannot look up
            anything yet; ``review``, questions about one frame, or about the first and the last, at stride 1, or, with
            half the clips, about videos.
        tower: whether the vision tower trains.
        projector: whether the projectors train.
        language_model: whether the language model trains.
        first_clip: which clips it sees: ``steps * clips_per_step`` from this one on.
        share: of those clips that it sees, the first ones, again and again.
        clips_per_step: videos of a step, each with several questions.
        learning_rate: the projectors' at its peak; every rate falls linearly to a tenth after a short warm-up.
        language_rate: the language model's, if it is another.
        tower_rate: the vision tower's.
        seed: of what is drawn in the model (routers); the clips depend on ``first_clip``.
    """

    name: str
    steps: int
    by_task: bool | None
    tower: bool = False
    projector: bool = True
    language_model: bool = True
    form: str = "questions"
    first_clip: int = 0
    share: float = 1.0
    clips_per_step: int = 8
    learning_rate: float = 1e-3
    language_rate: float | None = None
    tower_rate: float = 2e-4
    seed: int = 0


def train(
    model: torch.nn.Module, stage: Stage, folder: str | os.PathLike[str], say: Callable[[str], None] = print
) -> None:
    """Train in place, or load what an earlier run of the same stage left, and resume from there.

    Args:
        model: a TAM OneVision model.
        stage: what to do.
        folder: for ``NAME.pt`` (weights, optimizer, step) and ``NAME.jsonl`` (losses by step).
        say: told how far it is.

    Raises:
        InputError: the folder holds a run of that name with other settings.
    """
    file, log = Path(folder) / f"{stage.name}.pt", Path(folder) / f"{stage.name}.jsonl"
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_trains(stage, name))
    optimizer = _optimizer(model, stage)
    start = _resumed(model, optimizer, stage, file)
    lines = [line.record for line in read_journal(log)][: start // LOG_EVERY] if start else []
    replace_records(log, lines)
    model.train()
    losses: list[dict[str, float]] = []
    for step in range(start, stage.steps):
        rate = min(1.0, (step + 1) / 100) * (1 - 0.9 * step / stage.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        losses.append(_step(model, optimizer, stage, step))
        if (step + 1) % LOG_EVERY == 0:
            mean = {name: round(float(np.mean([one[name] for one in losses])), 5) for name in losses[0]}
            losses.clear()
            with Journal(log) as journal:
                journal.append({"step": step + 1, **mean})
            say(f"{stage.name}: step {step + 1} of {stage.steps}, loss {mean['lm_loss']:.3f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
            _save(model, optimizer, stage, step + 1, file)
    model.eval()


def _step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, stage: Stage, step: int) -> dict[str, float]:
    samples = _samples(stage, step * stage.clips_per_step)
    device = next(model.parameters()).device
    batch = collate(samples, model.config, FORMS[stage.form])
    output = model(**{name: tensor.to(device) for name, tensor in batch.items()})
    optimizer.zero_grad()
    output.loss.backward()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    found = {name: float(getattr(output, name).detach()) for name in ("lm_loss", "balance_loss", "z_loss")}
    if not math.isfinite(found["lm_loss"]):
        raise InputError(f"stage {stage.name}: the loss is {found['lm_loss']} at step {step + 1}; lower its rate")
    return found


def _trains(stage: Stage, name: str) -> bool:
    if "vision_tower" in name:
        return stage.tower
    return stage.projector if "multi_modal_projector" in name else stage.language_model


def _samples(stage: Stage, first: int) -> list[Sample]:
    """The clips of a step from index ``first`` on, each with its questions."""
    start, clips = FIRST_SEED + stage.first_clip, max(1, round(stage.share * stage.steps * stage.clips_per_step))
    of_step = np.random.default_rng(start + first)  # decides what the rows of a step have in common
    shown = FORMS[stage.form] is turns and of_step.random() < OPTIONS_SHOWN
    about, every = "video", 1
    if stage.form == "review":
        about = str(of_step.choice(list(REVIEW), p=list(REVIEW.values())))
        every = 2 if about == "video" else 1  # videos have more frames and tokens
    seeds = [start + index % clips for index in range(first, first + stage.clips_per_step, every)]
    return [_sample(stage, seed, about, shown=shown) for seed in seeds]


def _sample(stage: Stage, seed: int, about: str, *, shown: bool) -> Sample:
    clip, rng = draw_clip(seed), np.random.default_rng(seed + 1)
    by_task = bool(rng.integers(2)) if stage.by_task is None else stage.by_task
    questions = ask(clip, rng)
    if stage.form in ("pictures", "picture questions"):
        ticks, questions = in_a_picture(clip, questions, rng)
        seen = pictures(clip, ticks, questions, rng)
    elif about == "video":
        draws = VIDEO_DRAWS if stage.form == "video statements" else DRAWS
        budget, questions = together(clip, questions, rng, by_task=by_task, draws=draws)
        seen = sample(clip, budget, questions, rng)
    else:
        ticks, questions = in_review(clip, questions, rng, changes=about == "changes")
        seen = pictures(clip, ticks, questions, rng)
    if FORMS[stage.form] is turns:
        questions = [with_options(q) if shown else q for q in questions]
        questions = questions[: MOST_TURNS_WITH_OPTIONS if shown else MOST_TURNS]
    return Sample(seen.frames, seen.stride, questions)


def _optimizer(model: torch.nn.Module, stage: Stage) -> torch.optim.Optimizer:
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_peak(stage, name), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "lr": peak, "peak": peak} for peak, parameters in groups.items()],
        weight_decay=0.01,
        betas=(0.9, 0.98),
    )


def _peak(stage: Stage, name: str) -> float:
    if "vision_tower" in name:
        return stage.tower_rate
    if "multi_modal_projector" in name or stage.language_rate is None:
        return stage.learning_rate
    return stage.language_rate


def _save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, stage: Stage, step: int, file: Path) -> None:
    """Written beside and renamed, so that a kill leaves the last whole one."""
    state: dict[str, Any] = {"stage": asdict(stage), "step": step, "model": model.state_dict()}
    if step < stage.steps:
        state["optimizer"] = optimizer.state_dict()
    with replace_file(file, binary=True) as out:
        torch.save(state, out)


def _resumed(model: torch.nn.Module, optimizer: torch.optim.Optimizer, stage: Stage, file: Path) -> int:
    """Load an earlier run's state; the step to resume from."""
    if not file.exists():
        return 0
    state = torch.load(file, weights_only=True, map_location=next(model.parameters()).device)
    other = {name: value for name, value in state["stage"].items() if asdict(stage).get(name) != value}
    if other:
        raise InputError(
            f"{str(file)!r} holds a stage with {other}: expected the settings of {stage}; take another folder"
        )
    model.load_state_dict(state["model"])
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
