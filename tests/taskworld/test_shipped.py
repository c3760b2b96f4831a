"""The model that ships: it answers about its world, by looking, and its routing matters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tam_plugin.cli.main import main
from tam_plugin.eval.taskworld.arms import SWITCHED
from tam_plugin.eval.taskworld.experiment import switched
from tam_plugin.eval.taskworld.measuring import by_task_type, measure
from tam_plugin.eval.taskworld.questions import ask
from tam_plugin.eval.taskworld.run import split_clips
from tam_plugin.eval.taskworld.world import draw_clip
from tam_plugin.patches.onevision import load
from tam_plugin.patches.onevision.assistant import DEMO_FOLDER

CLIPS = split_clips(1)[:40]
"""The first clips of its test split, one question of every kind about each."""


@pytest.fixture(scope="module")
def shipped():
    return load(str(DEMO_FOLDER), device="cpu")


@pytest.fixture(scope="module")
def rows(shipped):
    return measure(shipped.model, CLIPS)


def test_it_is_small_and_knows_its_world(shipped) -> None:
    size = sum(file.stat().st_size for file in DEMO_FOLDER.iterdir())
    assert size <= 20e6 and shipped.notice is None
    assert shipped.model.config.tam_config.policy["groups"]["resolution"]["strides"] == [1]


@pytest.mark.slow
def test_it_answers_most_questions_of_every_type(rows) -> None:
    accuracy = by_task_type(rows)
    assert np.mean(list(accuracy.values())) >= 0.75, accuracy
    assert set(accuracy) == set(range(1, 9)) and min(accuracy.values()) >= 0.5, accuracy


@pytest.mark.slow
def test_words_alone_tell_nothing(shipped) -> None:
    found = measure(shipped.model, CLIPS, blind=True)
    assert np.mean(list(by_task_type(found).values())) <= 0.3


@pytest.mark.slow
def test_the_experts_that_the_router_wants_least_cost_accuracy(shipped, rows) -> None:
    arm = next(arm for arm in SWITCHED if arm.name == "lowest experts")  # the other controls: docs/evidence.md
    other = measure(switched(shipped.model, arm, 0).eval(), CLIPS)
    lost = np.mean([row.right for row in rows]) - np.mean([row.right for row in other])
    assert lost > 0.02, lost


@pytest.mark.slow
def test_ask_answers_about_the_clips_that_ship(capsys) -> None:
    clips = sorted(Path(DEMO_FOLDER).glob("clip*.mp4"))
    assert len(clips) >= 3
    right = total = 0
    for path in clips:
        clip = draw_clip(int(path.stem.removeprefix("clip")))
        asked = {q.task: q for q in ask(clip, np.random.default_rng(0), "test")}
        for question in list(asked.values())[:4]:
            capsys.readouterr()
            assert main(["ask", str(path), "--query", question.text, "--json", "--max-new-tokens", "16"]) == 0
            values = json.loads(capsys.readouterr().out)
            assert values["notice"] is None and values["duration_s"] == pytest.approx(clip.duration_s, rel=0.02)
            right += values["answer"] == question.statement.strip()
            total += 1
    assert right / total > 0.6, f"{right} of {total}"


def test_other_videos_are_not_of_its_world(capsys, sample_clip) -> None:
    assert main(["ask", str(sample_clip), "--query", "What color is the ball?"]) == 0
    said = capsys.readouterr().err
    assert "knows only the drawn clips" in said and "--model" in said
