"""Figures: every token is counted with the experts that it took, and curves are drawn of what a run left."""

from __future__ import annotations

import json

import pytest
import torch

from tam_plugin.config import TamConfig
from tam_plugin.errors import InputError
from tam_plugin.eval.taskworld import figures
from tam_plugin.eval.taskworld.arms import MIXTURE
from tam_plugin.eval.taskworld.budgets import policy
from tam_plugin.eval.taskworld.model import dense_model
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.patches.onevision import upgrade_dense
from tam_plugin.taxonomy import TaskDistribution, TaskType, length_class


def test_every_patch_of_every_frame_takes_two_experts() -> None:
    torch.manual_seed(0)
    net = upgrade_dense(dense_model(0), TamConfig.from_dict({**MIXTURE, "instruction": {"time": False}})).eval()
    seeds = range(4)
    counts = figures.expert_use(net, seeds)
    clips = [draw_clip(seed) for seed in seeds]
    assert set(counts) == {(task.label, length_class(clip.duration_s)) for task in TaskType for clip in clips}
    for (label, length), found in counts.items():
        certain = TaskDistribution.one_hot(next(task for task in TaskType if task.label == label))
        ours = [clip.duration_s for clip in clips if length_class(clip.duration_s) == length]
        frames = sum(policy().budget(certain, duration_s).num_frames for duration_s in ours)
        assert found.shape == (3, 4) and found.sum(1).tolist() == [frames * 144 * 2] * 3
    assert figures.share_of_each(counts).sum(1) == pytest.approx([1.0] * 3)


@pytest.mark.slow
def test_curves_are_drawn_of_what_a_run_left(tmp_path) -> None:
    with pytest.raises(InputError, match="holds no losses"):
        figures.draw_losses(tmp_path, tmp_path / "losses.png")
    pytest.importorskip("matplotlib", reason="needs matplotlib")

    def drawn(**rises: float) -> bytes:
        """The picture of a run whose losses rise by so much a step."""
        for name in ("statements", "by_task.stage2", "fixed.stage2", "both.stage3"):
            lines = [{"step": 10 * step, "lm_loss": 1 + step * rises.get(name, 0)} for step in range(4)]
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        figures.draw_losses(tmp_path, tmp_path / "losses.png")
        return (tmp_path / "losses.png").read_bytes()

    pictures = [drawn(), drawn(), *(drawn(**{name: 0.1}) for name in ("statements", "fixed.stage2", "both.stage3"))]
    assert pictures[0] == pictures[1] and len(set(pictures)) == 4  # every curve is seen
