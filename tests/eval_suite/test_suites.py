"""Suites: which benchmarks, which commands, what the results files say; no process is started here."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from tam_plugin.cli.main import main
from tam_plugin.eval.suite import load_suite, summarize
from tam_plugin.eval.suite.benchmarks import has_judge
from tam_plugin.eval.suite.summary import complete_results, describe, scores

TEN = [
    "ActivityNet-QA", "MVBench", "Video-MME", "EgoSchema", "PerceptionTest", "NExT-QA", "TempCompass", "LongVideoBench",
    "MLVU val", "MLVU test",
]  # fmt: skip
KEYS = ("OPENAI_API_KEY", "AZURE_API_KEY", "API_TYPE", "MODEL_VERSION")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


def test_task_names_are_lmms_evals():
    lmms_eval = pytest.importorskip("lmms_eval", reason="needs lmms-eval")
    known = set()
    for file in (Path(lmms_eval.__file__).parent / "tasks").rglob("*.yaml"):
        for line in file.read_text().splitlines():
            key, _, value = line.partition(":")
            if key in ("task", "group"):
                known.add(value.split("#")[0].strip().strip("\"'"))
    suite = load_suite("paper")
    assert [benchmark.name for benchmark in suite.benchmarks] == TEN
    assert {task for benchmark in suite.benchmarks for task in benchmark.tasks} <= known


def dry_run(capsys, *more: str) -> dict[str, list[str]]:
    """Lines of a dry run by benchmark."""
    assert main(["eval", "--suite", "paper", "--model-args", "pretrained=/m", "--dry-run", *more]) == 0
    lines: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("# ") and line[2:] in TEN:
            current = lines.setdefault(line[2:], [])
        else:
            current.append(line)
    return lines


def test_commands_of_a_dry_run(capsys, monkeypatch, tmp_path):
    found = dry_run(
        capsys, "--out", str(tmp_path / "out"), "--launcher", "accelerate launch", "--lmms-args", "--limit 8"
    )
    assert list(found) == TEN
    assert found["ActivityNet-QA"] == [
        "# activitynetqa left out: its judge needs OPENAI_API_KEY (or API_TYPE=azure and AZURE_API_KEY)"
    ]
    words = shlex.split(found["Video-MME"][-1])
    assert "MODEL_VERSION=gpt-3.5-turbo-1106" in words[:2]
    assert words[2:6] == ["accelerate", "launch", "-m", "lmms_eval"]
    options = dict(zip(words[6::2], words[7::2], strict=False))
    assert options["--model_args"] == f"pretrained=/m,log={tmp_path}/out/video-mme/samples.jsonl"
    assert (options["--tasks"], options["--model"], words[-2:]) == ("videomme", "tallva", ["--limit", "8"])
    assert (
        "captioning"
        not in shlex.split(found["TempCompass"][-1])[shlex.split(found["TempCompass"][-1]).index("--tasks") + 1]
    )
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    found = dry_run(capsys, "--out", str(tmp_path / "out"))
    assert "--tasks activitynetqa" in found["ActivityNet-QA"][-1]
    assert "tempcompass_captioning" in found["TempCompass"][-1]


def test_keys_of_the_judge():
    assert not has_judge({}) and not has_judge({"OPENAI_API_KEY": " "})
    assert has_judge({"OPENAI_API_KEY": "k"})
    assert not has_judge({"OPENAI_API_KEY": "k", "API_TYPE": "azure"})
    assert has_judge({"AZURE_API_KEY": "k", "API_TYPE": "azure"})


ONE = {"name": "One", "tasks": ["a"]}


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        (None, [], "expected paper, or a YAML file of benchmarks (there is none)"),
        ([], [], "expected a mapping, got []"),
        ({"benchmarks": []}, [], "benchmarks = []: expected a list of them"),
        ({"benchmarks": [ONE], "limit": 3}, [], "unknown field 'limit'"),
        ({"benchmarks": [{"name": "One"}]}, [], "benchmark 1: field 'tasks' is missing"),
        ({"benchmarks": [{**ONE, "tasks": "a"}]}, [], "tasks = 'a': expected a list of task names"),
        ({"benchmarks": [{**ONE, "judged": ["b"]}]}, [], "judged ones among the tasks"),
        ({"benchmarks": [ONE, {"name": "one", "tasks": ["b"]}]}, [], "name 'One': expected names that differ"),
        ({"benchmarks": [ONE], "include_path": "none"}, [], "include_path = 'none': there is no such folder"),
        ({"benchmarks": [ONE]}, ["--batch-size", "0"], "--batch-size 0: expected at least 1"),
        ({"benchmarks": [ONE]}, ["--model-args", "pretrained=x,log=y"], "--model-args: log: expected none"),
        ({"benchmarks": [ONE]}, ["--lmms-args", "--tasks b"], "--lmms-args: --tasks: expected none of"),
        ({"benchmarks": [ONE]}, ["--out", "a,b"], "expected a path without commas"),
        ({"benchmarks": [ONE]}, ["--out", ""], "tam eval needs --out"),
    ],
)
def test_bad_input(values, more, message, tmp_path, capsys):
    file = tmp_path / "suite.yaml"
    if values is not None:
        file.write_text(yaml.safe_dump(values))
    given = ["--suite", str(file), "--model-args", "pretrained=x", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main(["eval", *given, *more]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


RESULTS = {
    "results": {
        "group": {" ": " ", "alias": "group"},
        "first": {"alias": "first", "acc,none": 0.25, "acc_stderr,none": 0.1, "submission,none": None},
        "second": {"alias": "second", "acc,none": 0.75, "acc_stderr,none": "N/A"},
    },
    "group_subtasks": {"group": ["first", "second"], "first": [], "second": []},
    "n-samples": {"first": {"original": 9, "effective": 8}, "second": {"original": 4, "effective": 4}},
    "throughput": {"avg_requests_without_answer": 1},
}


def test_scores_of_tasks_and_groups():
    assert scores(RESULTS, "first") == {"acc": 0.25}
    assert scores(RESULTS, "group") == {"acc": 0.5}
    rows = summarize([("Group", ["group"], RESULTS, "done"), ("Gone", [], None, "left out")])
    assert rows[0]["value"] == 0.5 and rows[0]["samples"] == 12 and rows[0]["requests_without_answer"] == 1
    text = describe(rows)
    assert "0.5000" in text and "note: Gone: left out" in text


def test_what_a_kill_left_of_a_results_file_does_not_count(tmp_path):
    text = json.dumps(RESULTS)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "1_results.json").write_text(text[: len(text) // 2])
    assert complete_results(tmp_path, ["first"]) is None
    (folder / "2_results.json").write_text(text)
    assert complete_results(tmp_path, ["first", "group"]) == RESULTS
    assert complete_results(tmp_path, ["first", "third"]) is None
