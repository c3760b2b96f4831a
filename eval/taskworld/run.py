"""The experiment: one command, every arm from one shared baseline, resumable at any moment.

    python -m tam_plugin.eval.taskworld.run --out DIR [--setting cpu|gpu] [--seeds 0 1 2] [--arms both dfr …]

For each seed: an encoder that knows its patches, a dense model that knows the world's words, then each arm by the same
steps on the same clips and questions. Results go to ``DIR/results.jsonl``, a line an arm and seed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tam_plugin.config import TamConfig
from tam_plugin.eval.taskworld.arms import DENSE, SWITCHED, TRAINED, Arm
from tam_plugin.eval.taskworld.measuring import by_task_type, measure
from tam_plugin.eval.taskworld.model import dense_model
from tam_plugin.eval.taskworld.pretraining import pretrain
from tam_plugin.eval.taskworld.stages import Stage, train

TEST_SEEDS = range(250)
"""Clips of the test split."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How much is trained.

    Attributes:
        pretraining_steps: of the encoder, then of the projector's first lesson.
        picture_steps: of the language model's first lesson, about single frames: statements, then questions; the tower
            is frozen.
        statement_steps: of its second, statements about videos, half of them at the baseline's budget.
        stage2_steps: of each arm with its budgets, a dense tower that is frozen and one projector.
        stage3_steps: of each arm with its mixtures, all of it training.
    """

    pretraining_steps: tuple[int, int]
    picture_steps: tuple[int, int]
    statement_steps: int
    stage2_steps: int
    stage3_steps: int


SETTINGS = {
    "cpu": Setting(
        pretraining_steps=(400, 300),
        picture_steps=(800, 400),
        statement_steps=2000,
        stage2_steps=1200,
        stage3_steps=400,
    ),
    "gpu": Setting(
        pretraining_steps=(600, 300),
        picture_steps=(2000, 1000),
        statement_steps=2000,
        stage2_steps=3000,
        stage3_steps=3000,
    ),
    "smoke": Setting(pretraining_steps=(2, 2), picture_steps=(2, 2), statement_steps=2, stage2_steps=2, stage3_steps=2),
}


class Experiment:
    """One seed of the experiment in a folder.

    Args:
        folder: for checkpoints and losses; a killed run goes on there.
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
        dense = dense_model(self.seed)
        pretrain(dense.to(self.device), self.setting.pretraining_steps, self.seed, self.folder)
        model = _upgraded(dense, DENSE, self.seed).to(self.device)
        first = 0
        for form, steps in zip(("pictures", "picture questions"), self.setting.picture_steps, strict=True):
            lesson = {"by_task": True, "form": form, "clips_per_step": 16, "learning_rate": 2e-3, "first": first}
            train(model, self._stage(form.replace(" ", "_"), steps, tower=False, **lesson), self.folder)
            first += steps * 16
        lesson = {"by_task": None, "form": "statements", "first": first}
        train(model, self._stage("statements", self.setting.statement_steps, tower=False, **lesson), self.folder)
        return model

    def arm(self, arm: Arm) -> torch.nn.Module:
        """Stage 2, then stage 3 of an arm that trains."""
        slug = arm.name.replace(" ", "_")
        model, first = self.start(), sum(self.setting.picture_steps) * 16 + self.setting.statement_steps * 8
        stage = self._stage(f"{slug}.stage2", self.setting.stage2_steps, by_task=arm.by_task, tower=False, first=first)
        train(model, stage, self.folder)
        model = upcycled(model, arm.tam, self.seed).to(self.device)
        first += self.setting.stage2_steps * 8
        stage = self._stage(f"{slug}.stage3", self.setting.stage3_steps, by_task=arm.by_task, tower=True, first=first)
        train(model, stage, self.folder)
        return model

    def _stage(self, name: str, steps: int, *, first: int = 0, **settings: Any) -> Stage:
        return Stage(name=name, steps=steps, first_clip=self._first + first, seed=self.seed, **settings)


def _upgraded(dense: torch.nn.Module, tam: dict[str, Any], seed: int) -> torch.nn.Module:
    from tam_plugin.patches.onevision import upgrade_dense

    torch.manual_seed(seed)  # the gates' random start
    return upgrade_dense(dense, TamConfig.from_dict({**tam, "instruction": {"time": False}}))


def upcycled(model: torch.nn.Module, tam: dict[str, Any], seed: int) -> torch.nn.Module:
    """A dense TAM model's weights in a model with other sections; experts and projectors are copies."""
    dense = dense_model(seed)
    state = {
        name.replace("multi_modal_projector.shared.", "multi_modal_projector."): t
        for name, t in model.state_dict().items()
    }
    dense.load_state_dict(state)
    return _upgraded(dense, tam, seed)


def result(arm: Arm, seed: int, rows: Sequence[Any], seconds: float) -> dict[str, Any]:
    """A line of the results."""
    return {
        "arm": arm.name,
        "table": arm.table,
        "row": arm.row,
        "seed": seed,
        "by_task_type": by_task_type(rows),
        "mean_visual_tokens": sum(row.visual_tokens for row in rows) / len(rows),
        "seconds": round(seconds, 1),
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--setting", choices=SETTINGS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in TRAINED], default=None)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = args.out / "results.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    lines = results.read_text().splitlines() if results.exists() else []
    done = {(line["arm"], line["seed"]) for line in map(json.loads, lines)}
    for seed in args.seeds:
        experiment = Experiment(args.out, SETTINGS[args.setting], seed, device)
        for arm in TRAINED:
            runs = [run for run in (arm, *SWITCHED) if arm.name in (run.name, run.of) and (run.name, seed) not in done]
            if not runs or (args.arms and arm.name not in args.arms):
                continue
            start = time.monotonic()
            model = experiment.arm(arm)
            for run in runs:
                running = model if run is arm else switched(model, run, seed).to(device)
                rows = measure(running.eval(), TEST_SEEDS, by_task=run.by_task)
                with results.open("a") as out:
                    out.write(json.dumps(result(run, seed, rows, time.monotonic() - start)) + "\n")
                print(f"{run.name}, seed {seed}: {by_task_type(rows)}", flush=True)


def switched(model: torch.nn.Module, arm: Arm, seed: int) -> torch.nn.Module:
    """The same weights under other settings."""
    other = _upgraded(dense_model(seed), arm.tam, seed)
    other.load_state_dict(model.state_dict())
    return other


if __name__ == "__main__":
    main()
