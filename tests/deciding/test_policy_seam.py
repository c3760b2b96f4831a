"""A policy of another kind: one class and one name, and every command takes it."""

from __future__ import annotations

import json
import pickle
import re

import pytest

from tam_plugin.budget import Policy, TokenLayout, read_policy, register_policy
from tam_plugin.budget.named import unregister_policy
from tam_plugin.checkpoint.figures import policies
from tam_plugin.cli.main import main
from tam_plugin.config import TamConfig
from tam_plugin.deciding import Decider
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.flops.subjects import from_preset


class PerSecond(Policy):
    """So many frames per second at stride 2, whatever the question."""

    reads_question = False
    max_frames = 32

    def __init__(self, fps):
        self.fps = fps

    @classmethod
    def from_text(cls, text):
        return cls(float(text))

    @classmethod
    def from_dict(cls, values):
        return cls(values["fps"])

    def budget(self, distribution, duration_s, *, video_frames=None):
        wanted = int((duration_s or 60.0) * self.fps)
        return self.layout.budget(max(1, min(wanted, self.max_frames, video_frames or wanted)), 2)

    def to_dict(self):
        return {"kind": "per_second", "fps": self.fps}


@pytest.fixture(autouse=True)
def kind():
    register_policy("per_second", PerSecond)
    yield
    unregister_policy("per_second")


def test_the_command_line_takes_it(sample_clip, capsys):
    assert main(["plan", str(sample_clip), "--query", "What is it?", "--policy", "per_second:0.5", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["num_frames"], values["pool_stride"]) == (int(values["duration_s"] * 0.5), 2)
    assert len(values["timestamps_s"]) == values["num_frames"]


def test_a_checkpoint_holds_it_and_figures_count_it():
    tam = TamConfig(policy=PerSecond(0.2).to_dict())
    policy, baseline = policies(from_preset("llava-video-7b").layout, tam)
    assert policy.budget(None, 60.0).num_frames == 12
    assert policy.budget(None, 60.0).visual_tokens * 64 == baseline.budget(None, 60.0).visual_tokens * 12
    with pytest.raises(ConfigError, match="cannot be scaled"):
        policy.scaled(2.0)


def test_a_models_layout_strides_and_context_hold_for_it():
    """Its budgets are counted in the model's layout and cut to what the context leaves beside text and answer."""
    small = TokenLayout(grid=10, newline_position="one_token", strides=(1, 2, 4), context_tokens=300)
    decider = Decider(read_policy("per_second:1"), layout=small, count_tokens=len)
    budget = decider.decide(None, 20.0, text="x" * 100, output_tokens=20).budget
    room = 300 - 20 - 100
    assert budget.pool_stride == 4 and budget.num_frames == (room - 1) // 9
    assert budget.visual_tokens == budget.num_frames * 9 + 1
    assert "text beside a video" in budget.fallback
    with pytest.raises(ConfigError, match=r"stride 2: this model has projectors for \[1, 4\]"):
        Decider(PerSecond(1.0), layout=TokenLayout(strides=(1, 4))).decide(None, 5.0)


class Careless(PerSecond):
    """It minds neither the video's frames nor the question."""

    def budget(self, distribution, duration_s, *, video_frames=None):
        return self.layout.budget(30, 2)


@pytest.mark.parametrize("layout", [None, TokenLayout(newline_position="frame")])
def test_no_policy_takes_more_frames_than_there_are_and_each_names_the_task(layout):
    decider = Decider(Careless(1.0), layout=layout)
    budget = decider.decide("Count the dogs.", 9.0, video_frames=12).budget
    asked = decider.inductor.classify("Count the dogs.", duration_s=9.0)
    assert budget.num_frames == 12 and budget.visual_tokens == decider.adapted(0, 0).layout.count(12, 2)
    assert (budget.task, budget.confidence) == (asked.task, asked.confidence)
    assert decider.decide(None, 9.0, video_frames=7).budget.num_frames == 7
    assert Careless(1.0).capped(5).adapted(TokenLayout()).budget(None, 9.0).num_frames == 5


def test_a_text_that_leaves_no_room_is_the_questions_fault_a_small_context_the_models():
    tight = TokenLayout(newline_position="no_token", strides=(2,), context_tokens=196)
    with pytest.raises(InputError, match="not one frame fits"):
        Decider(Careless(1.0), layout=tight, count_tokens=len).decide(None, 9.0, text="x")
    with pytest.raises(ConfigError, match="not one frame fits"):
        Decider(Careless(1.0), layout=tight.replace(context_tokens=195)).decide(None, 9.0)


class Own:
    """Stands for somebody's own Inductor."""


def test_a_decider_in_another_process_has_the_inductor_that_was_given():
    given, loaded = Decider(PerSecond(1.0), inductor=Own()), Decider(PerSecond(1.0))
    loaded.decide("Count the dogs.", 9.0)
    assert isinstance(pickle.loads(pickle.dumps(given)).inductor, Own)
    assert len(pickle.dumps(loaded)) < 100_000  # one that was loaded here is loaded there anew


@pytest.mark.parametrize("cap", [1, 5, 100])
def test_a_cap_holds_before_and_after_it_is_adapted(cap):
    layout = TokenLayout(context_tokens=20_000)
    for policy in (PerSecond(2.0).capped(cap).adapted(layout), PerSecond(2.0).adapted(layout).capped(cap)):
        assert policy.max_frames == min(32, cap) == policy.budget(None, 100.0).num_frames


@pytest.mark.parametrize("name", ["", "a b", "per-second", "fixed"])
def test_names_of_kinds(name):
    with pytest.raises(ConfigError, match="kind of policy"):
        register_policy(name, PerSecond)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="kind = 'nobody': expected one of fixed, per_second"):
        read_policy({"kind": "nobody"})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"kind": ["fixed"]}, "kind = ['fixed']: expected one of"),
        ({"kind": {}}, "kind = {}: expected one of"),
        ({"kind": "per_second"}, "policy {'kind': 'per_second'} cannot be read: KeyError: 'fps'"),
        ("per_second:often", "policy 'per_second:often' cannot be read: ValueError"),
    ],
)
def test_what_a_kind_cannot_read_is_one_line_about_the_policy(given, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_policy(given)
