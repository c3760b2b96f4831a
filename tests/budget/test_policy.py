"""The budget policy's promises, over all task types and durations from one frame to a day."""

from __future__ import annotations

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin import BudgetPolicy, TaskDistribution, TaskType
from tam_plugin.budget import TokenLayout, read_policy
from tam_plugin.budget.policy import DEFAULT_POLICY
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.taxonomy import Sensitivity

POLICY = BudgetPolicy.from_yaml()
SOFT = BudgetPolicy.from_dict({**yaml.safe_load(DEFAULT_POLICY.read_text()), "mode": "soft"})
TASKS = st.sampled_from(list(TaskType))
DURATIONS_S = st.floats(0.04, 86_400.0)
DISTRIBUTIONS = st.lists(st.floats(0.001, 1.0), min_size=8, max_size=8).map(
    lambda raw: TaskDistribution(tuple(x / sum(raw) for x in raw))
)
VISUAL_LIMIT = 21_000 - 2_048 - 1_024


def budget(task, duration_s, policy=POLICY, **kwargs):
    return policy.budget(TaskDistribution.one_hot(task), duration_s, **kwargs)


def tokens_by_hand(num_frames, stride, grid=27):
    """LLaVA's "grid" layout counted row by row."""
    side = len(range(0, grid, stride))
    return sum(side + 1 for _ in range(num_frames) for _ in range(side))


@given(DISTRIBUTIONS, DURATIONS_S, st.sampled_from([POLICY, SOFT]), st.none() | st.integers(1, 10**7))
def test_never_over_the_context_or_the_frame_limits(distribution, duration_s, policy, video_frames):
    found = policy.budget(distribution, duration_s, video_frames=video_frames)
    assert 1 <= found.num_frames <= min(120, video_frames or 120)
    assert found.visual_tokens == tokens_by_hand(found.num_frames, found.pool_stride) <= VISUAL_LIMIT
    assert found.tokens_per_frame == {1: 729, 2: 196, 3: 81, 4: 49}[found.pool_stride]


@given(TASKS, DURATIONS_S, st.floats(1.0, 3.0))
def test_frames_never_fall_with_duration(task, duration_s, factor):
    longer_s = min(86_400.0, duration_s * factor)
    assert budget(task, duration_s).num_frames <= budget(task, longer_s).num_frames


@given(DISTRIBUTIONS, DURATIONS_S, st.floats(1.0, 3.0))
def test_soft_frames_never_fall_with_duration(distribution, duration_s, factor):
    longer_s = min(86_400.0, duration_s * factor)
    assert SOFT.budget(distribution, duration_s).num_frames <= SOFT.budget(distribution, longer_s).num_frames


@given(DURATIONS_S, st.none() | st.integers(1, 5_000))
def test_sensitivity_orders_frames_and_resolution(duration_s, video_frames):
    by_group = {t.sensitivity: budget(t, duration_s, video_frames=video_frames) for t in TaskType}
    fine, middle, many = (by_group[s] for s in (Sensitivity.RESOLUTION, Sensitivity.BALANCED, Sensitivity.FRAMES))
    assert many.num_frames >= middle.num_frames >= fine.num_frames
    assert many.pool_stride >= middle.pool_stride >= fine.pool_stride


@given(TASKS, st.floats(0.04, 86_400.0))
def test_never_more_frames_than_a_24_fps_video_has(task, duration_s):
    assert budget(task, duration_s).num_frames <= max(1, math.floor(duration_s * 24))


@given(TASKS, DURATIONS_S)
def test_soft_equals_hard_when_the_inductor_is_certain(task, duration_s):
    hard, soft = budget(task, duration_s), budget(task, duration_s, policy=SOFT)
    assert (soft.num_frames, soft.pool_stride) == (hard.num_frames, hard.pool_stride)


def test_soft_budget_lies_between_the_two_tasks_it_is_torn_between():
    half = TaskDistribution((0.5, 0, 0, 0.5, 0, 0, 0, 0))
    low, mid, high = (p.num_frames for p in (budget(1, 60.0), SOFT.budget(half, 60.0), budget(4, 60.0)))
    assert mid == round((low + high) / 2) and low < mid < high


def test_short_clips_are_finer_and_long_videos_get_more_frames():
    for task in TaskType:
        short, long = budget(task, 8.0), budget(task, 3_600.0)
        assert short.pool_stride <= long.pool_stride and short.num_frames < long.num_frames
    assert budget(TaskType.OCR_CROSS_MODAL, 8.0).pool_stride == 1


def test_budgets_are_not_merely_eight_combinations():
    seen = {(b.num_frames, b.pool_stride) for t in TaskType for d in range(1, 4000, 13) for b in [budget(t, float(d))]}
    assert len(seen) > 40


@pytest.mark.parametrize(
    ("duration_s", "probabilities", "words"),
    [
        (None, (1, 0, 0, 0, 0, 0, 0, 0), "duration is not known: planned for 60 s"),
        (90_000.0, (1, 0, 0, 0, 0, 0, 0, 0), "over 14400 s"),
        (0.1, (0, 0, 0, 1, 0, 0, 0, 0), "under 0.5 s"),
        (60.0, (0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), "confidence 0.300 is under 0.35"),
    ],
)
def test_fallback_gives_its_reason(duration_s, probabilities, words):
    assert words in POLICY.budget(TaskDistribution(probabilities), duration_s).fallback


def test_plain_decision_has_no_fallback():
    assert budget(TaskType.SUMMARY, 60.0).fallback is None


def test_unknown_duration_is_planned_as_its_stand_in():
    for task in TaskType:
        unknown, stand_in = budget(task, None), budget(task, 60.0)
        assert (unknown.num_frames, unknown.pool_stride) == (stand_in.num_frames, stand_in.pool_stride)


def test_a_smaller_context_coarsens_then_cuts_and_says_so():
    small = POLICY.adapted(TokenLayout(newline_position="one_token", context_tokens=4_000))
    found = budget(TaskType.TEMPORAL_SEQUENCE, 60.0, policy=small)
    limit = 4_000 - int(2_048 * 4_000 / 21_000) - int(1_024 * 4_000 / 21_000)
    assert found.pool_stride == 4 and found.num_frames == (limit - 1) // 49
    assert found.visual_tokens == found.num_frames * 49 + 1 and f"{(limit - 1) // 49} taken" in found.fallback


@pytest.mark.parametrize(("position", "extra"), [("grid", 14 * 64), ("frame", 64), ("one_token", 1), ("no_token", 0)])
def test_fixed_policy_is_the_hosts_default_in_every_layout(position, extra):
    fixed = BudgetPolicy.fixed(layout=TokenLayout(newline_position=position))
    found = fixed.budget(None, 10.0)
    assert (found.num_frames, found.pool_stride, found.task) == (64, 2, None)
    assert found.visual_tokens == 64 * 196 + extra
    assert fixed.adapted(TokenLayout(newline_position="no_token")).budget().visual_tokens == 64 * 196


@given(TASKS, DURATIONS_S)
def test_average_pooling_rounds_the_grid_down(task, duration_s):
    found = budget(
        task, duration_s, policy=POLICY.adapted(TokenLayout(pool_mode="average", newline_position="no_token"))
    )
    assert found.tokens_per_frame == {1: 729, 2: 169, 3: 81, 4: 36}[found.pool_stride]
    assert found.visual_tokens == found.num_frames * found.tokens_per_frame <= VISUAL_LIMIT


def test_fixed_policy_has_the_same_interface():
    found = BudgetPolicy.fixed(32, 1).budget(TaskDistribution.one_hot(8), 5.0, video_frames=10)
    assert (found.num_frames, found.tokens_per_frame, found.task) == (10, 729, TaskType.OCR_CROSS_MODAL)


@pytest.mark.parametrize("bad", [0, 0.0, -1.0, math.nan, math.inf, True, "10"])
def test_impossible_durations_are_refused(bad):
    for policy in (POLICY, BudgetPolicy.fixed()):
        with pytest.raises(InputError, match="duration_s = "):
            policy.budget(TaskDistribution.one_hot(1), bad)


def test_video_without_frames_is_refused():
    for policy in (POLICY, BudgetPolicy.fixed()):
        with pytest.raises(InputError, match="video_frames = 0"):
            budget(1, 10.0, policy=policy, video_frames=0)


def changed(**paths):
    values = yaml.safe_load(DEFAULT_POLICY.read_text())
    for path, value in paths.items():
        *parents, last = path.split("__")
        node = values
        for parent in parents:
            node = node[parent]
        if value is KeyError:
            del node[last]
        else:
            node[last] = value
    return values


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mode": "medium"}, "budget policy.mode = 'medium': expected one of hard, soft"),
        ({"version": 2}, "version = 2: expected 1"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"max_frames": 0}, "max_frames = 0: expected a whole number from 1 to 65535"),
        ({"context__newline_position": "row"}, "context.newline_position = 'row'"),
        ({"context__max_context_tokens": KeyError}, "context.max_context_tokens is missing"),
        ({"context__max_context_tokens": 3_100}, "not one frame fits the 28 visual tokens"),
        ({"context": None}, "context = None: expected a mapping"),
        ({"fallback__min_confidence": 1.5}, "min_confidence = 1.5: expected a number from 0 to 1"),
        ({"fallback__longest_s": 0.1}, "fallback.longest_s = 0.1"),
        ({"groups": {}}, "groups = {}"),
        ({"groups__frames__strides": [4, 2]}, "groups.frames.strides = [4, 2]"),
        ({"groups__frames__strides": [True]}, "groups.frames.strides = [True]"),
        ({"groups__frames__frames_per_second": math.nan}, "frames_per_second = nan"),
        ({"groups__balanced__max_frames": [[0, 64], [10, 8]]}, "groups.balanced.max_frames"),
        ({"groups__balanced__min_frames": [[0, 8], [30, 65]]}, "min_frames is 65 at 30 s, above max_frames, 64"),
        ({"groups__balanced": KeyError}, "needs group 'balanced'"),
        ({"tasks": {"Cooking": "frames"}}, "unknown task type 'Cooking'"),
        ({"tasks": {"Action Recognition": "fast"}}, "needs group 'fast'"),
        ({"tasks": ["frames"]}, "tasks = ['frames']"),
    ],
)
def test_bad_policies_are_refused_with_field_and_value(change, words):
    with pytest.raises(ConfigError) as caught:
        BudgetPolicy.from_dict(changed(**change))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_task_can_be_given_another_group():
    moved = BudgetPolicy.from_dict(changed(tasks={"Static Attributes Recognition": "frames"}))
    assert budget(1, 60.0, policy=moved).num_frames == budget(4, 60.0).num_frames


@pytest.mark.parametrize(("text", "words"), [("mode: [", "not valid YAML"), ("- 1", "expected a mapping")])
def test_unreadable_policy_files(tmp_path, text, words):
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        BudgetPolicy.from_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        BudgetPolicy.from_yaml(tmp_path / "missing.yaml")


def test_policy_round_trips_through_what_a_checkpoint_stores():
    again = read_policy(POLICY.to_dict())
    for task in TaskType:
        assert budget(task, 75.0, policy=again) == budget(task, 75.0)
