"""Which benchmarks a suite holds: the paper's ten, or those of a YAML file."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_yaml

PAPER_JUDGE = "gpt-3.5-turbo-1106"
"""The paper's judge of open answers; lmms-eval 0.7.3 would take another."""

PAPER: dict[str, Any] = {
    "judge_model": PAPER_JUDGE,
    "benchmarks": [
        {"name": "ActivityNet-QA", "tasks": ["activitynetqa"], "judged": ["activitynetqa"]},
        {"name": "MVBench", "tasks": ["mvbench"]},
        {"name": "Video-MME", "tasks": ["videomme"]},
        {
            "name": "EgoSchema",
            "tasks": ["egoschema"],
            "note": "the answers of its test set are not public: lmms-eval writes a submission file and no score",
        },
        {"name": "PerceptionTest", "tasks": ["perceptiontest_val_mc"]},
        {"name": "NExT-QA", "tasks": ["nextqa_mc_test"]},
        {
            "name": "TempCompass",
            "tasks": [
                "tempcompass_multi_choice",
                "tempcompass_yes_no",
                "tempcompass_caption_matching",
                "tempcompass_captioning",
            ],
            "judged": ["tempcompass_captioning"],
            "note": "its tasks ask the judge for answers that match no option; without a key these count as wrong",
        },
        {"name": "LongVideoBench", "tasks": ["longvideobench_val_v"]},
        {"name": "MLVU val", "tasks": ["mlvu_dev"]},
        {"name": "MLVU test", "tasks": ["mlvu_test"]},
    ],
}
"""Tab. 1, by the names of lmms-eval 0.7.3."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: the paper's.
        tasks: of lmms-eval.
        judged: those that need a language model as judge.
        note: what a reader of its score must know.
    """

    name: str
    tasks: tuple[str, ...]
    judged: tuple[str, ...] = ()
    note: str | None = None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    def runnable(self, has_judge: bool) -> tuple[str, ...]:
        """Tasks that can be run."""
        return tuple(task for task in self.tasks if has_judge or task not in self.judged)


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Benchmarks in their order.

    Attributes:
        benchmarks: of different names.
        include_path: folder of task files beside lmms-eval's own.
        judge_model: what ``MODEL_VERSION`` is where the environment does not say.
    """

    benchmarks: tuple[Benchmark, ...]
    include_path: str | None = None
    judge_model: str | None = None


def has_judge(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether lmms-eval's judged tasks have a key."""
    azure = environment.get("API_TYPE", "openai") == "azure"
    return bool(environment.get("AZURE_API_KEY" if azure else "OPENAI_API_KEY", "").strip())


def load_suite(name_or_path: str) -> Suite:
    """The suite ``paper``, or that of a YAML file; its ``include_path`` is relative to the file.

    Raises:
        InputError: neither a suite's name nor a file.
        ConfigError: a field is missing, unknown or wrong.
    """
    if name_or_path == "paper":
        return _read(PAPER, "paper", Path.cwd())
    path = Path(name_or_path)
    if not path.is_file():
        raise InputError(f"--suite {name_or_path!r}: expected paper, or a YAML file of benchmarks (there is none)")
    return _read(read_yaml(path, what="suite"), name_or_path, path.resolve().parent)


def _read(values: Any, where: str, folder: Path) -> Suite:
    values = _fields(values, where, {"benchmarks"}, {"include_path", "judge_model"})
    entries = values["benchmarks"]
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"suite {where}: benchmarks = {short(entries)}: expected a list of them")
    benchmarks = tuple(_benchmark(entry, f"{where}, benchmark {n}") for n, entry in enumerate(entries, 1))
    folders = [benchmark.folder for benchmark in benchmarks]
    if twice := [b.name for b in benchmarks if folders.count(b.folder) > 1 or not b.folder]:
        raise ConfigError(f"suite {where}: name {twice[0]!r}: expected names that differ in letters and digits")
    for name in ("include_path", "judge_model"):
        if not isinstance(values.get(name), (str, type(None))):
            raise ConfigError(f"suite {where}: {name} = {short(values[name])}: expected a text")
    include = values.get("include_path")
    if include is not None and not (folder / include).is_dir():
        raise ConfigError(f"suite {where}: include_path = {include!r}: there is no such folder")
    return Suite(
        benchmarks=benchmarks,
        include_path=None if include is None else str(folder / include),
        judge_model=values.get("judge_model"),
    )


def _benchmark(entry: Any, where: str) -> Benchmark:
    values = _fields(entry, where, {"name", "tasks"}, {"judged", "note"})
    for name in ("tasks", "judged"):
        listed = values.get(name, [])
        if not isinstance(listed, list) or not all(isinstance(t, str) and t.strip() and "," not in t for t in listed):
            raise ConfigError(f"suite {where}: {name} = {short(listed)}: expected a list of task names")
    if not values["tasks"] or not set(values.get("judged", [])) <= set(values["tasks"]):
        raise ConfigError(f"suite {where}: expected at least one task, and judged ones among the tasks")
    note = values.get("note")
    return Benchmark(
        name=str(values["name"]),
        tasks=tuple(values["tasks"]),
        judged=tuple(values.get("judged", [])),
        note=None if note is None else str(note),
    )


def _fields(values: Any, where: str, needed: set[str], others: set[str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"suite {where}: expected a mapping, got {short(values)}")
    if unknown := sorted(map(str, set(values) - needed - others)):
        raise ConfigError(
            f"suite {where}: unknown field {unknown[0]!r}; expected some of {', '.join(sorted(needed | others))}"
        )
    if missing := sorted(needed - set(values)):
        raise ConfigError(f"suite {where}: field {missing[0]!r} is missing")
    return values
