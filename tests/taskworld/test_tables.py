"""Tables of results against sums by hand and known intervals."""

from __future__ import annotations

import numpy as np
import pytest

from tam_plugin.eval.taskworld.tables import (
    Counted,
    accuracy,
    beside_the_paper,
    by_seed,
    interval,
    relative_change,
    table,
)


def rows(rights: list[bool], *, task: int = 1, kind: str = "a", duration_s: float = 10.0) -> list[dict]:
    return [
        {"seed": i, "task": task, "kind": kind, "right": right, "duration_s": duration_s}
        for i, right in enumerate(rights)
    ]


def test_kinds_and_types_weigh_the_same_however_many_questions_they_have() -> None:
    found = rows([True] * 90 + [False] * 10) + rows([False] * 4, kind="b") + rows([True], task=2)
    assert accuracy(found) == pytest.approx(((0.9 + 0.0) / 2 + 1.0) / 2)


def test_counts_say_what_the_rows_say_of_any_clips() -> None:
    rng = np.random.default_rng(1)
    of_types = [(1, "a"), (1, "b"), (2, "c"), (3, "a")]
    found = [
        row | {"seed": 100 + row["seed"]}
        for task, kind in of_types
        for row in rows(list(rng.random(rng.integers(1, 9)) < 0.6), task=task, kind=kind)
    ]
    counted = Counted.of(found)
    for _ in range(50):
        drawn = rng.integers(0, len(counted.clips), 3)
        again = [row for place in drawn for row in found if row["seed"] == counted.clips[place]]
        assert counted.accuracy(drawn) == pytest.approx(accuracy(again), abs=1e-12)


def test_the_interval_is_that_of_a_share() -> None:
    rng = np.random.default_rng(0)
    found = rows(list(rng.random(400) < 0.7))
    share = accuracy(found)
    assert interval([found]) == pytest.approx(1.96 * (share * (1 - share) / 400) ** 0.5, rel=0.15)
    assert interval([rows([True] * 50), rows([False] * 50)]) > 0.45, "runs that disagree make it wide"


def test_a_table_has_a_row_an_arm() -> None:
    lines = [
        {"arm": "x", "table": "3e", "seed": seed, "mean_visual_tokens": 289, "rows": rows([True, seed == 1])}
        for seed in (0, 1)
    ]
    text = table(lines).splitlines()
    assert len(text) == 3 and text[2].startswith("| x | 3e | 2 | 289 | 75.0 ± ")
    assert text[2].split("|")[6].strip() == "75.0" and "nan" in text[2]


def test_seeds_stand_side_by_side() -> None:
    lines = [
        {"arm": "x", "seed": 7, "rows": rows([True] * 3 + [False])},
        {"arm": "x", "seed": 2, "rows": rows([True, False])},
        {"arm": "y", "seed": 7, "rows": rows([True] * 4)},
    ]
    head, _, x, y = by_seed(lines).splitlines()
    assert head == "| arm | seed 2 | seed 7 |"
    assert x.startswith("| x | 50.0 ± ") and "| 75.0 ± " in x
    assert y == "| y | – | 100.0 ± 0.0 |"


def test_a_change_is_relative_and_pairs_the_clips() -> None:
    first, second = rows([True] * 60 + [False] * 40), rows([True] * 75 + [False] * 25)
    change, half = relative_change([(first, second)])
    assert change == pytest.approx(25.0) and 0 < half < 15
    assert relative_change([(first, first)]) == (0.0, 0.0), "the same clips are drawn of both"
    doubled, _ = relative_change([(first, second), (first, first)])
    assert doubled == pytest.approx(12.5)


def test_signs_are_told_only_where_the_interval_leaves_out_zero() -> None:
    def line(arm: str, right: int) -> dict:
        return {"arm": arm, "seed": 0, "rows": rows([True] * right + [False] * (100 - right))}

    lines = [line("neither", 60), line("both", 90), line("moe", 75), line("dfr", 61), line("random experts", 40)]
    text = {row.split("(")[-1].split(")")[0]: row for row in beside_the_paper(lines).splitlines()[2:]}
    assert "| +12.1 | yes |" in text["both"]
    assert "| -2.7 | no |" in text["moe"] and "| +2.8 | not told |" in text["dfr"]
    assert "| 10 |" in text["random experts"] and "| both | -55.6 ±" in text["random experts"]
    assert "random projector" not in text, "arms without results have no row"
