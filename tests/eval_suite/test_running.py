"""``tam eval --suite FILE`` over local tasks: killed and resumed, a judge without a key, a benchmark that fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tam_plugin.eval.lmms.sample_log import read_log
from tests.eval_lmms.conftest import dense_and_tokenizer, lmms_eval, onevision, videos
from tests.eval_lmms.material import write_tasks

__all__ = ["dense_and_tokenizer", "lmms_eval", "onevision", "videos"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("lmms_eval")]

COPIES = 15


def start(suite: Path, out: Path, model_args: str, **options) -> subprocess.Popen:
    """The command, as a shell would start it."""
    left = ("OPENAI_API_KEY", "AZURE_API_KEY", "API_TYPE")
    environment = {name: value for name, value in os.environ.items() if name not in left and "COV_CORE" not in name}
    command = [
        *(sys.executable, "-m", "tam_plugin.cli.main", "eval", "--suite", str(suite), "--model", "tallva_onevision"),
        *("--model-args", model_args, "--out", str(out), "--json"),
    ]
    return subprocess.Popen(
        command,
        cwd=suite.parent,  # not the tree: metadata that an older build left there would hide the installed one's
        env={**environment, "HF_HOME": str(suite.parent / "hf"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def suite(videos, tmp_path_factory) -> Path:
    """Three benchmarks, the second long enough to be killed in, the third judged in part."""
    folder = tmp_path_factory.mktemp("suite")
    write_tasks(folder / "short", videos[:1])
    write_tasks(folder / "tasks", videos[:1])
    long = write_tasks(folder / "long", videos * COPIES)
    file = folder / "tasks" / "tiny_choice.yaml"
    file.write_text(file.read_text().replace(str(folder / "tasks"), str(long.folder)))  # many rows for this one
    path = folder / "suite.yaml"
    benchmarks = [
        {"name": "Short", "tasks": ["tiny_likelihood"]},
        {"name": "Long", "tasks": ["tiny_choice"]},
        {"name": "Judged", "tasks": ["tiny_open"], "judged": ["tiny_open"]},
    ]
    path.write_text(yaml.safe_dump({"include_path": "tasks", "benchmarks": benchmarks}))
    return path


def test_killed_and_resumed(suite, onevision, tmp_path):
    arguments = f"pretrained={onevision},device=cpu,dtype=float32,max_frames=16"
    log = tmp_path / "out" / "long" / "samples.jsonl"
    run = start(suite, tmp_path / "out", arguments)
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_bytes().count(b"\n") >= 3):
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()
        time.sleep(0.02)
    second = start(suite, tmp_path / "out", arguments)
    assert "in use by another process (process " in second.communicate(timeout=60)[1]
    run.send_signal(signal.SIGTERM)
    _, progress = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Short: done\n" in progress
    answered = {(r["doc_id"], r["response"]) for r in read_log(log)}
    asked = 4 * COPIES
    assert 3 <= len(answered) < asked

    short = list((tmp_path / "out" / "short").rglob("*_results.json"))
    again = start(suite, tmp_path / "out", arguments)
    text, progress = again.communicate(timeout=240)
    assert again.returncode == 0, progress
    assert "Short: done before\n" in progress and "Long: resumes, output in" in progress
    assert "Judged: left out: tiny_open left out: its judge needs OPENAI_API_KEY" in progress
    assert list((tmp_path / "out" / "short").rglob("*_results.json")) == short
    output = (tmp_path / "out" / "long" / "lmms_eval.log").read_text()
    assert f"{len(answered)} of {asked} requests were answered by an earlier run" in output
    records = read_log(log)
    assert len(records) == asked
    assert answered <= {(r["doc_id"], r["response"]) for r in records}
    rows = {row["benchmark"]: row for row in json.loads(text)["rows"]}
    assert (rows["Short"]["metric"], rows["Long"]["metric"], rows["Long"]["samples"]) == ("acc", "letter_acc", asked)
    assert rows["Judged"]["task"] is None and "judge" in rows["Judged"]["note"]
    other = start(suite, tmp_path / "out", arguments.replace("16", "8"))
    assert "belongs to another run: model_args is " in other.communicate(timeout=60)[1]
    assert other.returncode == 2


def test_a_benchmark_that_fails_is_named_with_its_log(suite, onevision, tmp_path):
    path = suite.with_name("failing.yaml")
    benchmarks = [{"name": "No such task", "tasks": ["tiny_none"]}, {"name": "Short", "tasks": ["tiny_likelihood"]}]
    path.write_text(yaml.safe_dump({"include_path": "tasks", "benchmarks": benchmarks}))
    arguments = f"pretrained={onevision},device=cpu,dtype=float32,max_frames=4,ablation=tab10_lowest"
    run = start(path, tmp_path / "out", arguments)
    text, progress = run.communicate(timeout=240)
    assert run.returncode == 1
    last = progress.splitlines()[-1]
    assert last.startswith("tam eval: No such task failed: ")
    assert str(tmp_path / "out" / "no-such-task" / "lmms_eval.log") in last and "tiny_none" in last
    values = json.loads(text)
    assert values["failed"] == ["No such task"]
    assert [row["benchmark"] for row in values["rows"] if row["task"]] == ["Short"]
    (file,) = (tmp_path / "out" / "short").rglob("*_results.json")
    assert "ablation=tab10_lowest" in json.loads(file.read_text())["config"]["model_args"]
    assert {r["ablation"] for r in read_log(tmp_path / "out" / "short" / "samples.jsonl")} == {"tab10_lowest"}
