"""The world: files show what was drawn, every budget costs the same, flashes are seen where they should be."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tam_plugin as tam
from tam_plugin.eval.taskworld.batches import encode
from tam_plugin.eval.taskworld.budgets import FIXED, budgets, fixed, policy
from tam_plugin.eval.taskworld.model import tokenizer
from tam_plugin.eval.taskworld.questions import SPLITS, ask, phrases
from tam_plugin.eval.taskworld.render import SIZE, draw, encoder_input, ticks_at, write_file
from tam_plugin.eval.taskworld.sprites import IDS, SCENE_NAMES, TILES, Tile
from tam_plugin.eval.taskworld.world import FLASH_TICKS, LONGEST_S, SHORTEST_S, draw_clip
from tam_plugin.video import preprocess_frames

DURATIONS = st.floats(SHORTEST_S, LONGEST_S)


@pytest.mark.parametrize(("seed", "duration_s"), [(3, 2.0), (4, 14.5), (5, 61.3)])
def test_a_file_shows_what_training_draws(tmp_path, seed: int, duration_s: float) -> None:
    clip = draw_clip(seed, duration_s)
    write_file(clip, tmp_path / "clip.mp4")
    info = tam.probe_video(tmp_path / "clip.mp4")
    assert info.duration_s == pytest.approx(duration_s, rel=0.01)
    for num_frames in (2, 8, 32):
        read = tam.sample_frames(tmp_path / "clip.mp4", num_frames)
        seen = preprocess_frames(read.frames, size=SIZE, mean=(0.5,) * 3, std=(0.5,) * 3)
        drawn = encoder_input(draw(clip, ticks_at(clip, num_frames)))
        assert seen.shape == drawn.shape
        assert (seen - drawn).abs().mean() * 127.5 < 3, "of 255, in the mean"


@given(st.integers(0, 10**6), DURATIONS)
@settings(max_examples=200, deadline=None)
def test_the_policy_sees_every_flash(seed: int, duration_s: float) -> None:
    clip = draw_clip(seed, duration_s)
    certain = tam.TaskDistribution.one_hot(tam.TaskType.TEMPORAL_SEQUENCE)
    ticks = ticks_at(clip, policy().budget(certain, duration_s).num_frames)
    lamp = next(track for track in clip.tracks.values() if (track == IDS[Tile("lamp")]).any())
    seen = [TILES[i].color for i in lamp[ticks] if TILES[i].color]
    assert list(dict.fromkeys(seen)) == clip.facts["flash_colors"]


def test_the_baseline_misses_flashes_of_long_videos() -> None:
    clips = [draw_clip(seed, 200.0) for seed in range(100)]
    missed = 0
    for clip in clips:
        lamp = next(track for track in clip.tracks.values() if (track == IDS[Tile("lamp")]).any())
        missed += len({TILES[i].color for i in lamp[ticks_at(clip, FIXED[0])]} - {None}) < clip.facts["flashes"]
    assert missed > 60


@pytest.mark.parametrize(
    ("duration_s", "least", "most"), [(5.0, 0.95, 1), (15.0, 0.95, 1), (40, 0, 0.8), (100, 0, 0.8)]
)
def test_counting_frames_tells_the_main_scene_where_the_policy_looks(duration_s, least, most) -> None:
    """An observer who takes the scene seen most often: nearly always right at the policy's frames, not at 8 of many."""
    frames = policy().budget(tam.TaskDistribution.one_hot(tam.TaskType.SUMMARY), duration_s).num_frames

    def observed(num_frames: int) -> float:
        right = 0
        for seed in range(400):
            clip = draw_clip(seed, duration_s)
            seen = collections.Counter(clip.scenes[ticks_at(clip, num_frames)].tolist())
            right += SCENE_NAMES[max(seen, key=seen.get)] == clip.facts["scene"]
        return right / 400

    assert observed(frames) >= 0.95
    assert least <= observed(FIXED[0]) <= most


@pytest.mark.parametrize("task", list(tam.TaskType))
@given(duration_s=st.floats(0.5, 14400))
@settings(max_examples=30, deadline=None)
def test_every_budget_costs_what_the_baseline_costs(task: tam.TaskType, duration_s: float) -> None:
    budget = policy().budget(tam.TaskDistribution.one_hot(task), duration_s)
    assert budget.visual_tokens == fixed().budget(None, duration_s).visual_tokens == 289
    assert budget.fallback is None or "duration" in budget.fallback


@pytest.mark.parametrize("split", SPLITS)
def test_questions_are_well_formed(split: str) -> None:
    for seed in range(50):
        clip = draw_clip(seed)
        asked = ask(clip, np.random.default_rng(seed), split)
        assert {question.task for question in asked} == set(tam.TaskType)
        for question in asked:
            assert len(set(question.options)) == 4 and question.answer in question.options
            assert "{" not in question.text
            assert question.text not in [other.text for other in asked if other is not question]


def test_answers_and_their_places_are_balanced() -> None:
    answers: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    places: collections.Counter[int] = collections.Counter()
    for seed in range(1500):
        for question in ask(draw_clip(seed), np.random.default_rng(seed)):
            answers[question.kind][question.answer] += 1
            places[question.options.index(question.answer)] += 1
    assert set(answers) == set(phrases())
    for kind, counts in answers.items():
        expected = sum(counts.values()) / len(counts)
        assert all(abs(n - expected) < 6 * expected**0.5 for n in counts.values()), (kind, counts)
    assert max(places.values()) - min(places.values()) < 0.05 * sum(places.values())


def test_the_splits_share_words_but_no_wording() -> None:
    train = {w for entry in phrases().values() for w in entry["train"]}
    test = {w for entry in phrases().values() for w in entry["test"]}
    assert not train & test

    def tokens(wordings: set[str]) -> set[int]:
        return {token for text in wordings for token in encode(text)}

    assert tokens(test) <= tokens(train), tokenizer().convert_ids_to_tokens(sorted(tokens(test) - tokens(train)))


def test_the_inductor_tells_most_of_the_task_types() -> None:
    right = total = 0
    for seed in range(20):
        clip = draw_clip(seed)
        asked = ask(clip, np.random.default_rng(seed), "test")
        for question, budget in zip(asked, budgets(clip, asked, by_task=True), strict=True):
            right += budget.task is question.task
            total += 1
    assert right / total > 0.9, f"{right} of {total}"


def test_flash_lengths_cover_the_largest_gap_between_frames() -> None:
    for ticks, frames, seconds in ((8, 8, 5.0), (16, 8, 15.0), (32, 18, 40.0), (64, 32, 100.0)):
        clip = draw_clip(0, seconds)
        assert clip.num_ticks == ticks
        assert FLASH_TICKS[ticks] == int(np.diff(ticks_at(clip, frames)).max())
