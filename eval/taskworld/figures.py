"""Figures of the experiment: its training curves, and which experts a checkpoint uses by task type and length.

python -m tam_plugin.eval.taskworld.figures --run DIR --seed 0 --model FOLDER --out docs/taskworld
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from tam_plugin.errors import InputError
from tam_plugin.eval.report.figures import drawing
from tam_plugin.eval.report.routing import Counts, draw_heatmap
from tam_plugin.eval.taskworld.batches import sample
from tam_plugin.eval.taskworld.budgets import policy
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.storage import read_journal
from tam_plugin.taxonomy import TaskDistribution, TaskType, length_class
from tam_plugin.training.curves import STYLES, smoothed

CLIPS = range(100)
STAGES = ("pictures", "picture_questions", "statements", "video_statements", "review", "stage2", "stage3")


@torch.inference_mode()
def expert_use(model, seeds: Iterable[int]) -> Counts:
    """Tokens that took each expert, ``[L, E]``, by task type and length class; each clip at every type's budget.

    The encoder does not see the question: types with the same budget differ in nothing.
    """
    from tam_plugin.vision import RoutingStatistics, collect_routing

    statistics = RoutingStatistics()
    keys = set()
    for seed in seeds:
        clip = draw_clip(seed)
        for task in TaskType:
            budget = policy().budget(TaskDistribution.one_hot(task), clip.duration_s)
            frames = sample(clip, budget, []).frames.to(next(model.parameters()).device)
            with collect_routing(model.model.vision_tower) as routing:
                model.model.vision_tower(frames)
            keys.add((task.label, length_class(clip.duration_s)))
            statistics.update(routing, [len(frames)], [(task.label, length_class(clip.duration_s))])
    return {key: statistics.counts(key).numpy() for key in sorted(keys)}


def draw_losses(folder: Path, out: Path) -> None:
    """A panel for each kind of stage that left a log in a seed's folder; smoothed.

    Raises:
        InputError: there is none.
    """
    logs = {file.stem: file for file in sorted(folder.glob("*.jsonl"))}
    panels = [(stage, [name for name in logs if name.split(".")[-1] == stage]) for stage in STAGES]
    if not logs:
        raise InputError(f"{str(folder)!r} holds no losses: expected the folder of a seed of the experiment")
    with drawing(out, 26, 13) as figure:
        places = list(figure.subplots(2, 4).flat)
        for axes in places[len(panels) :]:
            axes.remove()
        for axes, (stage, names) in zip(places, panels, strict=False):
            for i, name in enumerate(names):
                rows = [line.record for line in read_journal(logs[name])]
                label = name.removesuffix(stage).strip(".").replace("_", " ")
                losses = smoothed([row["lm_loss"] for row in rows], 0.6)
                axes.plot([row["step"] for row in rows], losses, linestyle=STYLES[i % len(STYLES)], label=label)
            axes.set_title(stage.replace("_", " ").replace("stage", "stage "))
            axes.set_ylim(bottom=0)
            if len(names) > 1:  # room above the curves for their names
                axes.set_ylim(top=axes.get_ylim()[1] * (1 + 0.1 * len(names)))
                axes.legend(loc="upper right")
        figure.supxlabel("step")
        figure.supylabel("loss")


def share_of_each(counts: Counts) -> np.ndarray:
    """``[L, E]`` over all types and lengths."""
    total = np.sum(list(counts.values()), axis=0)
    return total / total.sum(axis=1, keepdims=True)


def main() -> None:
    """Draw the figures."""
    from tam_plugin.patches.onevision import load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="folder of the experiment, for its curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", help="a checkpoint, for its experts")
    parser.add_argument("--out", required=True, type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.run:
        draw_losses(args.run / f"seed{args.seed}", args.out / "losses.png")
    if args.model:
        counts = expert_use(load(args.model, device="cpu").model, CLIPS)
        draw_heatmap(args.out / "experts.png", counts)
        print(np.round(share_of_each(counts), 3))


if __name__ == "__main__":
    main()
