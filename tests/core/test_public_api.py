"""The public surface: what outside code relies on."""

from __future__ import annotations

import pytest

import tam_plugin as tam
from tam_plugin.errors import InputError

_CLASSES = {"TaskType", "TaskDistribution", "TamConfig", "Inductor", "BudgetPolicy", "VisualBudget", "SampledVideo"}
SURFACE = {*_CLASSES, "VideoInfo", "plan", "probe_video", "sample_frames", "upcycle_vision_encoder"}


def test_the_surface_is_there():
    assert set(dir(tam)) >= SURFACE and all(callable(getattr(tam, name)) for name in SURFACE)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tam.nothing


@pytest.mark.parametrize("duration_s", [5.0, 400.0, None])
def test_plan_is_inductor_then_policy(duration_s):
    query, options = "What is the color of the car?", ["red", "blue"]
    distribution = tam.Inductor.from_pretrained().classify(query, duration_s=duration_s, options=options)
    assert tam.plan(query, duration_s, options) == tam.BudgetPolicy.from_yaml().budget(distribution, duration_s)


@pytest.mark.parametrize("bad", [0, -3.0, float("nan"), float("inf")])
def test_plan_refuses_impossible_durations(bad):
    with pytest.raises(InputError, match="duration"):
        tam.plan("What is it?", bad)


def test_a_budget_samples_its_frames(sample_clip):
    info = tam.probe_video(sample_clip)
    budget = tam.plan("Put the events in chronological order", info.duration_s)
    video = tam.sample_frames(sample_clip, budget)
    assert video.frames.shape == (budget.num_frames, info.height, info.width, 3)
    assert video.frames.dtype == "uint8" and len(video.timestamps_s) == budget.num_frames
