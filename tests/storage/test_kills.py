"""SIGKILL at any moment of a command that resumes: run again, it ends with the files of a run left alone.

A command joins by a function in ``kill_cases.py`` and an entry here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tam_plugin.checkpoint.source import CONFIG
from tam_plugin.storage import read_journal
from tests import kill_harness
from tests.checkpoint.conftest import digests, make_big
from tests.checkpoint.test_merge import Material
from tests.inductor.test_training import make_bert
from tests.inductor_tagging.conftest import make_rows
from tests.inductor_tagging.server import ChatServer
from tests.kill_harness import Run
from tests.plans.data import LAYOUT, mixed_rows, write

pytestmark = pytest.mark.slow
CASES = "tests.storage.kill_cases"


@dataclass(frozen=True)
class Case:
    """A command that resumes.

    Attributes:
        name: the function in ``kill_cases.py``.
        make: makes in a folder what it works on; its keyword arguments.
        options: of a run.
        spread: kills spread over a run, each in a folder of its own.
        last: kills before each of its last changes of the disk.
        complete: the file that is there when, and only when, all is.
        rest: share of a whole run's changes of the disk that are left to do, at most, after the last kill before that.
        seen: what of a folder must be equal.
    """

    name: str
    make: Callable[[Path], dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    spread: int = 8
    last: int = 6
    complete: str | None = None
    rest: float = 0.5
    seen: Callable[[Path], Any] = digests


def material_of_merge(folder: Path) -> dict[str, Any]:
    made = Material(folder)
    return {"run": made.run, "base": made.base}


def plan_rows(folder: Path) -> dict[str, Any]:
    return {"data": write(folder / "data.jsonl", mixed_rows(90)), "layout": LAYOUT}


def big(folder: Path) -> dict[str, Any]:
    return {"source": make_big(folder)}


def tiny_base(folder: Path) -> dict[str, Any]:
    return {"base": make_bert(folder / "base")}


def without_seconds(folder: Path) -> list[dict[str, Any]]:
    return [{**line.record, "seconds": 0} for line in read_journal(folder / "results.jsonl")]


CASES_OF = [
    Case("upcycle", big, {"transfer": "link"}, spread=0, last=8, complete=CONFIG),
    Case("merge", material_of_merge, spread=10, last=6, complete=CONFIG),
    Case("plan_data", plan_rows, {"shards": 2}, spread=3, last=5, complete="plans.json", rest=0.9),
    Case("inductor_train", tiny_base, spread=3, last=3),
    Case("taskworld", lambda _: {}, spread=1, last=1, seen=without_seconds),
]


@pytest.mark.parametrize("case", CASES_OF, ids=lambda case: case.name)
def test_a_run_that_was_killed_anywhere_ends_as_one_that_was_not(tmp_path_factory, case: Case):
    check(case, case.make(tmp_path_factory.mktemp("material")), tmp_path_factory.mktemp("runs"))


def test_tagging_that_was_killed_anywhere_ends_as_if_it_was_not(tmp_path: Path):
    queries = write(tmp_path / "in.jsonl", make_rows(40))
    case = Case("data_tag", lambda _: {}, spread=6, last=4, seen=results_of_tagging)
    with ChatServer() as server:
        check(case, {"queries": queries, "url": server.url}, tmp_path / "runs")


def results_of_tagging(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in ("out.jsonl", "out.jsonl.rejected.jsonl")]


def check(case: Case, material: dict[str, Any], folder: Path) -> None:
    """One run left alone; kills all over a run, each in a folder of its own; and the same command in each of those."""
    kills = [(n + 0.5) / case.spread for n in range(case.spread)] + [-back for back in reversed(range(case.last))]
    out = [folder / str(number) for number in range(len(kills))]
    plan: list[tuple[Path, dict[str, Any], float | None]] = [(folder / "calm", case.options, None)]
    plan += [(place, case.options, kill) for place, kill in zip(out, kills, strict=True)]
    plan += [(place, case.options, None) for place in out]
    runs = kill_harness.run(f"{CASES}:{case.name}", material, plan)
    calm, killed, resumed = runs[0], runs[1 : 1 + len(out)], runs[1 + len(out) :]
    assert not calm.error and all(run.killed for run in killed)
    assert [run.error for run in resumed] == [None] * len(out)
    expected = case.seen(folder / "calm")
    for place in out:
        assert case.seen(place) == expected, place.name
    if case.complete:
        check_what_kills_left(case, calm, killed, resumed)


def check_what_kills_left(case: Case, calm: Run, killed: list[Run], resumed: list[Run]) -> None:
    """Nothing that looks complete is not; what was finished is not done again."""
    whole = [run for run in killed if case.complete in run.files]
    assert 0 < len(whole) < case.last and not any(set(calm.files) - set(run.files) for run in whole)
    assert any(file.endswith(".part") for run in killed for file in run.files)
    later = [after.touches for before, after in zip(killed, resumed, strict=True) if case.complete not in before.files]
    assert later[-1] is not None and calm.touches is not None and later[-1] < calm.touches * case.rest


@pytest.mark.parametrize("transfer", ["link", "copy"])
def test_ten_kills_of_one_conversion_change_nothing(tmp_path, tmp_path_factory, transfer: str):
    """Each run resumes from the one before: shares of a whole run that ten of them just about make up."""
    rng, options = random.Random(11), {"transfer": transfer}
    kills = [rng.uniform(0.01, 0.15) for _ in range(10)]
    out = tmp_path / "out"
    plan = [(tmp_path / "calm", options, None), *((out, options, kill) for kill in kills), (out, options, None)]
    runs = kill_harness.run(f"{CASES}:upcycle", big(tmp_path_factory.mktemp("big")), plan)
    killed = runs[1:-1]
    assert all(run.killed for run in killed) and not any(run.error for run in runs)
    # Whatever a kill left had no config.json, so that nothing loads it; and work was carried over.
    assert not any(CONFIG in run.files for run in killed)
    assert any(file.endswith(".part") for run in killed for file in run.files)
    assert runs[-1].touches is not None and runs[0].touches is not None and runs[-1].touches < runs[0].touches
    assert digests(out) == digests(tmp_path / "calm")
