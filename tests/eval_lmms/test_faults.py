"""What goes wrong in an evaluation: killed runs, judges out of reach, rows without a question, options as a string."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
from pathlib import Path

import pytest

from tam_plugin.eval.lmms.results import ERROR_MARK
from tam_plugin.eval.lmms.sample_log import read_log
from tests.eval_lmms.judge import JUDGED, judge
from tests.eval_lmms.material import Tasks, write_tasks
from tests.eval_lmms.process import Outcome, command_line, run_lmms_eval
from tests.kill_harness import kill_when

pytestmark = pytest.mark.usefixtures("lmms_eval")

NAMES = "tiny_open,tiny_likelihood"
NO_QUESTION, UNDECODABLE = 4, 5
REQUESTS = 6 * (1 + 3)


@pytest.fixture(scope="module")
def tasks(videos, tmp_path_factory) -> Tasks:
    """Rows that keep their options as a string, one of them without a question and one with a broken video."""
    folder = tmp_path_factory.mktemp("tasks")
    broken = folder / "broken.mp4"
    broken.write_bytes(Path(videos[0]["video"]).read_bytes()[:400])
    rows = [*videos, {**videos[0], "question": " "}, {**videos[0], "video": str(broken)}]
    return write_tasks(folder, [{**row, "options": str(row["options"])} for row in rows])


def arguments(onevision: Path, folder: Path) -> dict[str, object]:
    return {
        "pretrained": onevision,
        "device": "cpu",
        "dtype": "float32",
        "max_frames": 8,
        "log": folder / "log.jsonl",
    }


@pytest.fixture(scope="module")
def whole(onevision, tasks, tmp_path_factory) -> tuple[Outcome, Path]:
    """A run from beginning to end, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return run_lmms_eval(folder, "tallva_onevision", arguments(onevision, folder), tasks, names=NAMES), folder


@pytest.mark.slow
def test_rows_without_a_question_and_options_as_a_string(whole, tasks):
    from tam_plugin import Inductor

    outcome, folder = whole
    records = {(r["task"], r["doc_id"], r["index"]): r for r in read_log(folder / "log.jsonl")}
    assert len(records) == REQUESTS
    for (_, row, _), record in records.items():
        if row == NO_QUESTION:
            assert "contains no question to decide the frames by; use policy=fixed:FRAMES:STRIDE" in record["error"]
        elif row == UNDECODABLE:
            assert tasks.rows[row]["video"] in record["error"]
        else:
            assert record["error"] is None and record["question"] == tasks.rows[row]["question"]
    record = records["tiny_open", 0, 0]
    said = Inductor.from_pretrained().classify(record["question"], record["duration_s"], ["red", "green", "blue"])
    assert record["confidence"] == pytest.approx(said.confidence)
    assert outcome.results["throughput"]["avg_requests_without_answer"] == 8
    assert f"8 of {REQUESTS} requests have no answer and count as wrong:" in outcome.output
    for row in (NO_QUESTION, UNDECODABLE):
        assert ERROR_MARK in str(outcome.samples("tiny_open")[row]["resps"])
        assert outcome.samples("tiny_open")[row]["exact_match"] == outcome.samples("tiny_likelihood")[row]["acc"] == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(whole, onevision, tasks, tmp_path):
    log, of_model = tmp_path / "log.jsonl", ("tallva_onevision", arguments(onevision, tmp_path), tasks)
    command, environment = command_line(tmp_path, *of_model, names=NAMES)
    with (tmp_path / "killed.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output)
        kill_when(process, lambda: log.exists() and log.read_bytes().count(b"\n") >= 3)
    before = log.read_bytes()
    with log.open("ab") as file:
        file.write(b'{"task": "tiny_open", "spl')  # what a kill within a write leaves
    answered = {(r["task"], r["doc_id"], r["index"]) for r in read_log(log) if r["error"] is None}
    assert 0 < len(answered) < REQUESTS - 8
    assert not list(tmp_path.rglob("*_results.json"))

    resumed = run_lmms_eval(tmp_path, *of_model, names=NAMES)
    lines = log.read_bytes()
    assert lines.startswith(before[: before.rfind(b"\n") + 1])
    asked = [json.loads(line) for line in lines.splitlines()]
    again = [(r["task"], r["doc_id"], r["index"]) for r in asked if r["error"] is None]
    assert len(again) == len(set(again)) == REQUESTS - 8  # nothing that had an answer was asked twice
    outcome = whole[0]
    for task in NAMES.split(","):
        assert resumed.results["results"][task] == outcome.results["results"][task]
        for one, other in zip(resumed.samples(task), outcome.samples(task), strict=True):
            assert one["filtered_resps"] == other["filtered_resps"]
    for throughput in (resumed.results["throughput"], outcome.results["throughput"]):
        assert throughput["avg_requests_without_answer"] == 8
    assert resumed.results["throughput"]["total_gen_tokens"] == outcome.results["throughput"]["total_gen_tokens"]


def test_a_log_of_another_evaluation_is_refused(onevision, videos, instances, tmp_path):
    from tam_plugin.errors import ConfigError, InputError
    from tests.eval_lmms.test_models import make, texts

    log = tmp_path / "log.jsonl"
    first = make("onevision", onevision, videos, log=log)
    said = texts(first.generate_until(instances(videos)))
    lines = log.read_bytes()
    with pytest.raises(InputError, match=r"log = .* is in use by another process"):
        make("onevision", onevision, videos, log=log)
    first._tally.close()
    again = make("onevision", onevision, videos, log=log, batch_size=3)
    assert texts(again.generate_until(instances(videos))) == said
    assert log.read_bytes() == lines
    again.generate_until(instances(videos[:1], max_new_tokens=2))  # another request than the one in the log
    again.generate_until(instances(videos[:1], temperature=0.5, max_new_tokens=1))
    again._tally.close()
    drawn = make("onevision", onevision, videos, log=log)
    drawn.generate_until(instances(videos[:1], temperature=0.5, max_new_tokens=1))
    assert len(log.read_bytes().splitlines()) == len(lines.splitlines()) + 3
    with pytest.raises(
        ConfigError, match=r"belongs to an evaluation with other weights, policy, Inductor or arguments"
    ):
        make("onevision", onevision, videos, log=log, policy="fixed:4:2")


@pytest.fixture
def closed_port() -> int:
    """A local port where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_without_its_judge_a_task_has_no_score_and_the_answers_are_kept(onevision, videos, closed_port, tmp_path):
    changes = {
        "doc_to_target: !function tiny_utils.word": "doc_to_target: !function tiny_utils.word\n"
        "process_results: !function tiny_utils.judged",
        "metric: exact_match": "metric: judged",
    }
    tasks = write_tasks(tmp_path / "tasks", videos[:2], **changes)
    with (tasks.folder / "tiny_utils.py").open("a") as file:
        file.write(JUDGED)
    url = {"OPENAI_API_URL": f"http://127.0.0.1:{closed_port}/v1", "OPENAI_API_KEY": "none"}
    of_model = ("tallva_onevision", arguments(onevision, tmp_path), tasks)

    def ask() -> Outcome:
        return run_lmms_eval(tmp_path, *of_model, names="tiny_open", environment={**url, "NO_PROXY": "127.0.0.1"})

    outcome = ask()
    assert "Error during evaluation" in outcome.output and "Connection error" in outcome.output
    assert not list(outcome.folder.rglob("*_results.json"))
    assert outcome.code == 0  # lmms-eval's way; the documentation warns of it
    lines = (tmp_path / "log.jsonl").read_bytes()
    assert [r["error"] for r in read_log(tmp_path / "log.jsonl")] == [None, None]

    with judge(closed_port):
        outcome = ask()
    assert outcome.results["results"]["tiny_open"]["judged,none"] == 1.0
    assert (tmp_path / "log.jsonl").read_bytes() == lines  # the judge alone was asked


def test_judges_of_the_benchmarks_out_of_reach(closed_port, tmp_path, monkeypatch):
    """What the documentation says of lmms-eval 0.7.3 itself."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    url = f"http://127.0.0.1:{closed_port}/v1/chat/completions"
    tempcompass = importlib.import_module("lmms_eval.tasks.tempcompass.utils")
    monkeypatch.setattr(tempcompass, "API_URL", url)
    assert tempcompass.get_eval_result("Is it right?", maxtry=0) == (None, 0)  # as if it were wrong
    activitynet = importlib.import_module("lmms_eval.tasks.activitynetqa.utils")
    monkeypatch.setattr(activitynet, "API_URL", url)
    monkeypatch.setattr(activitynet, "NUM_SECONDS_TO_SLEEP", 0)
    names = ("question", "answer", "video_name", "question_id", "type")
    with pytest.raises(TypeError):
        activitynet.activitynetqa_process_results(dict.fromkeys(names, "x"), ["yes"])
