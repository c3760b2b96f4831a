"""Doubt: which texts are held to say nothing, what the confidence is worth, and what that does to the budget."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.budget import BudgetPolicy
from tam_plugin.budget.cost import bought
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import prepare_query
from tam_plugin.inductor.dataset import LabelledQuery
from tam_plugin.inductor.doubt import Doubt
from tam_plugin.inductor.evaluation import by_part
from tam_plugin.inductor.off_home import auroc, read_texts, selective
from tam_plugin.taxonomy import TaskDistribution, TaskType

DOUBT = Doubt(max_entropy=0.9, max_unknown_share=0.5)
SURE = TaskDistribution.one_hot(8)
POLICY = BudgetPolicy.from_yaml()


@pytest.mark.parametrize(
    ("query", "unknown", "found", "said"),
    [
        ("1234 ???", 0.0, SURE, "holds no word"),
        ("请用选项字母回答。", 0.0, SURE, "instruction on the form of the answer alone"),
        ("Answer briefly.", 0.0, SURE, "instruction on the form of the answer alone"),
        ("รถคันนี้สีอะไร", 0.9, SURE, "90% of the query's characters are of a script"),
        ("hi", 0.0, TaskDistribution((0.125,) * 8), "does not read like a question"),
    ],
)
def test_what_says_nothing_gets_the_baseline_and_the_reason(
    query: str, unknown: float, found: TaskDistribution, said: str
) -> None:
    judged = DOUBT.judge(found, prepare_query(query), unknown)
    assert said in (judged.doubt or "") and len(set(judged.probabilities)) == 1
    for duration_s in (5.0, 60.0, 3600.0):
        budget = POLICY.budget(judged, duration_s)
        baseline = BudgetPolicy.fixed().budget(None, duration_s)
        assert (budget.num_frames, budget.pool_stride) == (baseline.num_frames, baseline.pool_stride)
        assert said in (budget.fallback or "") and "baseline's budget taken" in (budget.fallback or "")
    assert POLICY.budget(judged, 60.0, video_frames=7).num_frames == 7


def test_unknown_characters_lower_the_confidence_and_keep_the_type() -> None:
    found = TaskDistribution((0.05, 0.6, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05))
    seen = [DOUBT.judge(found, prepare_query("what is he doing"), share) for share in (0.0, 0.2, 0.4)]
    assert [s.task for s in seen] == [TaskType.ACTION_RECOGNITION] * 3 and seen[0] == found
    assert seen[0].confidence > seen[1].confidence > seen[2].confidence
    assert seen[1].confidence == pytest.approx(0.8 * 0.6 + 0.2 / 8)


def test_a_question_between_three_types_is_still_a_question() -> None:
    query = prepare_query("what is he doing")
    torn = TaskDistribution((0.31, 0.31, 0.29, 0.03, 0.02, 0.02, 0.01, 0.01))
    even = TaskDistribution((0.2, 0.2, 0.12, 0.12, 0.1, 0.1, 0.08, 0.08))
    assert DOUBT.judge(torn, query, 0.0) == torn
    assert DOUBT.judge(even, query, 0.0).doubt is not None


@given(
    st.lists(st.floats(0, 1), min_size=8, max_size=8).filter(lambda raw: sum(raw) > 0),
    st.floats(0.5, 10_000),
    st.sampled_from([None, 1, 10, 100]),
)
def test_doubt_never_buys_more_than_the_baseline(raw: list[float], duration_s: float, frames: int | None) -> None:
    floor = POLICY.fallback.min_confidence
    peak = max(raw) / sum(raw)
    share = min(1.0, (peak - floor) / (peak - 1 / 8) + 1e-3) if peak > floor else 0.0
    doubted = TaskDistribution(tuple(x / sum(raw) * (1 - share) + share / 8 for x in raw))
    budget = POLICY.budget(doubted, duration_s, video_frames=frames)
    baseline = POLICY.budget(TaskDistribution.unknown("no"), duration_s, video_frames=frames)
    assert doubted.confidence < floor and budget.visual_tokens <= baseline.visual_tokens


def test_policies_without_a_baseline_take_the_default_one() -> None:
    values = POLICY.to_dict()
    old = {k: v for k, v in values["fallback"].items() if not k.startswith("baseline")}
    assert BudgetPolicy.from_dict({**values, "fallback": old}).fallback == POLICY.fallback


@pytest.mark.parametrize("value", [[], {"max_entropy": 0.9}, {"max_entropy": 2, "max_unknown_share": 0.5}])
def test_a_broken_entry_of_a_checkpoint_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="tam_doubt") as caught:
        Doubt.from_config({"tam_doubt": value}, where="here")
    assert "\n" not in str(caught.value)
    assert Doubt.from_config({}, where="here") is None


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    high, low = [0.9, 0.4, 0.4, 0.7], [0.1, 0.4, 0.8]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in itertools.product(high, low)]
    assert auroc(high, low) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc([], low) is None


def certain(task: int, sure: float) -> TaskDistribution:
    return TaskDistribution(tuple(sure if i == task - 1 else (1 - sure) / 7 for i in range(8)))


def test_accuracy_kept_and_parts() -> None:
    rows = [LabelledQuery("a", 1, dataset="x"), LabelledQuery("b", 2, language="zh", dataset="x")]
    rows += [LabelledQuery("c", 4, label2=2, language="zh", dataset="y")]
    found = [certain(1, 0.9), certain(3, 0.5), certain(2, 0.8)]
    figures = selective(found, rows)
    assert figures["auroc"] == 1.0 and figures["kept"]["1"] == pytest.approx(2 / 3) and figures["kept"]["0.7"] == 1.0
    parts = by_part(found, rows, "language") or {}
    assert {name: part["count"] for name, part in parts.items()} == {"en": 1, "zh": 2}
    # type 3 for 2: wrong, but of the same sensitivity; type 2 for 4 by its second label alone
    assert [parts["zh"][k] for k in ("accuracy", "accuracy_label2", "group_accuracy", "group_accuracy_label2")] == [
        0.0,
        0.5,
        0.5,
        1.0,
    ]
    assert by_part(found[:1], rows[:1], "language") is None


def test_cost_compares_with_the_budget_of_the_true_type() -> None:
    figures = bought([(certain(6, 0.9), TaskType(8), 120.0), (certain(8, 0.9), TaskType(8), 120.0)], POLICY)
    wrong, right = (POLICY.budget(TaskDistribution.one_hot(task), 120.0) for task in (6, 8))
    (row,) = figures.values()
    assert row["frames"] == (wrong.num_frames + right.num_frames) / 2 and row["frames_of_label"] == right.num_frames


def test_the_texts_that_ask_nothing_are_none_that_were_trained_on(tmp_path: Path) -> None:
    from tam_plugin.inductor.dataset import NO_QUESTION_FILE

    texts = read_texts()
    trained = set(NO_QUESTION_FILE.read_text(encoding="utf-8").splitlines())
    assert set(texts) == {"chat", "code", "random"} and min(map(len, texts.values())) >= 18
    assert not trained & {text for kind in texts.values() for text in kind}
    (tmp_path / "bad.jsonl").write_text(json.dumps({"text": "a"}))
    with pytest.raises(InputError, match="line 1: expected a JSON object with text and kind"):
        read_texts(tmp_path / "bad.jsonl")
