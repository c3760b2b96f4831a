"""One seed of the experiment: what every arm starts from, and the stages of an arm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tam_plugin.config import TamConfig
from tam_plugin.eval.taskworld.arms import DENSE, Arm
from tam_plugin.eval.taskworld.model import dense_model
from tam_plugin.eval.taskworld.pretraining import pretrain
from tam_plugin.eval.taskworld.stages import Stage, train

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is trained.

    Attributes:
        pretraining_steps: of the encoder, then of the projector's first lesson.
        picture_steps: of the language model's first lesson, about single frames: statements, then questions; the tower
            is frozen.
        statement_steps: of its second and third, statements about videos, half of them at the baseline's budget; the
            third mostly of what needs several frames.
        review_steps: of its last, questions about one or two frames and about videos at either budget.
        stage2_steps: of each arm with its budgets, a dense tower and one projector.
        stage3_steps: of each arm with its mixtures, all of it training.
    """

    pretraining_steps: tuple[int, int]
    picture_steps: tuple[int, int]
    statement_steps: tuple[int, int]
    review_steps: int
    stage2_steps: int
    stage3_steps: int


SETTINGS = {
    "cpu": Setting(
        pretraining_steps=(400, 300),
        picture_steps=(1400, 400),
        statement_steps=(2000, 1500),
        review_steps=1200,
        stage2_steps=600,
        stage3_steps=700,
    ),
    "gpu": Setting(
        pretraining_steps=(600, 300),
        picture_steps=(2000, 1000),
        statement_steps=(4000, 2000),
        review_steps=2000,
        stage2_steps=3000,
        stage3_steps=3000,
    ),
    "smoke": Setting(
        pretraining_steps=(2, 2),
        picture_steps=(2, 2),
        statement_steps=(2, 2),
        review_steps=2,
        stage2_steps=2,
        stage3_steps=2,
    ),
}


class Experiment:
    """One seed of the experiment in a folder.

    Args:
        folder: for checkpoints and losses; a killed run resumes there.
        setting: how much is trained.
        seed: of the model and of the clips.
        device: where.
    """

    def __init__(self, folder: Path, setting: Setting, seed: int, device: str = "cpu") -> None:
        self.folder, self.setting, self.seed, self.device = folder / f"seed{seed}", setting, seed, device
        self.folder.mkdir(parents=True, exist_ok=True)
        self._first = seed * 10**7

    def start(self) -> torch.nn.Module:
        """What every arm starts from: dense, one projector, at home at the baseline's budget and at the policy's."""
        dense: Any = dense_model(self.seed)  # transformers wraps its "to" in a way that loses the type
        pretrain(dense.to(self.device), self.setting.pretraining_steps, self.seed, self.folder)
        model = upgraded(dense, DENSE, self.seed).to(self.device)
        first = 0
        lesson: dict[str, Any]
        for form, steps in zip(("pictures", "picture questions"), self.setting.picture_steps, strict=True):
            lesson = {"by_task": True, "form": form, "clips_per_step": 16, "learning_rate": 2e-3, "first": first}
            train(model, self._stage(form.replace(" ", "_"), steps, **lesson), self.folder)
            first += steps * 16
        for form, steps in zip(("statements", "video statements"), self.setting.statement_steps, strict=True):
            stage = self._stage(form.replace(" ", "_"), steps, by_task=None, form=form, first=first)
            train(model, stage, self.folder)
            first += steps * 8
        lesson = {"by_task": None, "form": "review", "clips_per_step": 16, "first": first}
        train(model, self._stage("review", self.setting.review_steps, **lesson), self.folder)
        return model

    def arm(self, arm: Arm) -> torch.nn.Module:
        """The stages of an arm that trains, as far as it goes."""
        model, first = self.start(), self._clips_of_start()
        if arm.ends < 2:
            return model
        settings: dict[str, Any] = {"by_task": arm.by_task, "share": arm.data}
        parts = {part: part in arm.stage2 for part in ("language_model", "projector", "tower")}
        stage = self._stage(arm.stage2_name, self.setting.stage2_steps, first=first, **settings, **parts)
        train(model, stage, self.folder)
        if arm.ends < 3:
            return model
        model = upcycled(model, arm.tam, self.seed).to(self.device)
        first += self.setting.stage2_steps * 8
        # The language model continues from where stage 2 left it; experts have yet to diverge.
        rates = {"language_rate": 3e-4, "tower_rate": 1e-3}
        stage = self._stage(stage3_name(arm), self.setting.stage3_steps, first=first, tower=True, **rates, **settings)
        train(model, stage, self.folder)
        return model

    def _clips_of_start(self) -> int:
        s = self.setting
        return (sum(s.picture_steps) + s.review_steps) * 16 + sum(s.statement_steps) * 8

    def _stage(self, name: str, steps: int, *, first: int = 0, **settings: Any) -> Stage:
        return Stage(name=name, steps=steps, first_clip=self._first + first, seed=self.seed, **settings)


def stage3_name(arm: Arm) -> str:
    """Names the files of an arm's third stage."""
    return f"{arm.name.replace(' ', '_')}.stage3"


def upgraded(dense: LlavaOnevisionForConditionalGeneration, tam: dict[str, Any], seed: int) -> torch.nn.Module:
    """A dense host model with the arm's sections; gates start from the seed."""
    from tam_plugin.patches.onevision import upgrade_dense

    torch.manual_seed(seed)
    return upgrade_dense(dense, TamConfig.from_dict({**tam, "instruction": {"time": False}}))


def upcycled(model: torch.nn.Module, tam: dict[str, Any], seed: int) -> torch.nn.Module:
    """A dense TAM model's weights in a model with other sections; experts and projectors are copies."""
    dense = dense_model(seed)
    state = {
        name.replace("multi_modal_projector.shared.", "multi_modal_projector."): t
        for name, t in model.state_dict().items()
    }
    dense.load_state_dict(state)
    return upgraded(dense, tam, seed)


def switched(model: torch.nn.Module, arm: Arm, seed: int) -> torch.nn.Module:
    """The same weights under other settings."""
    other = upgraded(dense_model(seed), arm.tam, seed)
    other.load_state_dict(model.state_dict())
    return other
