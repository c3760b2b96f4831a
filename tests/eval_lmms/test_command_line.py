"""lmms-eval's own command line over local tasks: results, sample log, failures, several processes, the baseline."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tam_plugin.eval.lmms.results import ERROR_MARK
from tam_plugin.eval.lmms.sample_log import read_log
from tests.eval_lmms.material import TASKS, Tasks, write_tasks
from tests.eval_lmms.process import Outcome, run_lmms_eval
from tests.llava import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("lmms_eval")]

TEXT = {
    "tiny_choice": "Select the best answer.\n{question}\nA. red\nB. green\nC. blue\nThe best answer is:",
    "tiny_open": "{question}\nAnswer the question using a single word or phrase.",
    "tiny_likelihood": "{question}",
}


@pytest.fixture(scope="module")
def tasks(videos, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """The three tasks over three videos, a folder of frames, a broken file and a file that is not there."""
    folder = tmp_path_factory.mktemp("tasks")
    broken = folder / "broken.mp4"
    broken.write_bytes(Path(videos[0]["video"]).read_bytes()[:400])
    rows = [*videos, *({**videos[0], "video": str(file)} for file in (broken, folder / "none.mp4"))]
    return write_tasks(folder, rows)


def check_log(records: list[dict], tasks: Tasks) -> None:
    """Every request once, with what it was decided by, or with its error."""
    requests = {(r["task"], r["doc_id"], r["index"]) for r in records}
    expected = {(task, n, i) for task in TASKS for n in range(len(tasks.rows)) for i in range(3)}
    assert requests == {(t, n, i) for t, n, i in expected if i == 0 or t == "tiny_likelihood"}
    assert len(records) == len(requests)
    for record in records:
        row = tasks.rows[record["doc_id"]]
        if record["doc_id"] >= 4:
            assert row["video"] in record["error"]
            assert "response" not in record
            continue
        assert record["error"] is None
        assert record["question"] == row["question"]
        assert 0 < record["confidence"] <= 1
        assert record["task_type"]
        assert len(record["timestamps_s"]) == record["frames"]
        assert record["prompt_tokens"] > record["visual_tokens"] > 0
        assert record["seconds"] > 0


def check_results(outcome: Outcome, tasks: Tasks, records: list[dict]) -> None:
    """Results and sample files agree with the log, and nothing that failed counts as right."""
    logged = {(r["task"], r["doc_id"], r["index"]): r.get("response") for r in records}
    failed = sum(record["error"] is not None for record in records)
    results = outcome.results
    assert results["throughput"]["avg_requests_without_answer"] == failed == 10
    assert f"10 of {len(records)} requests have no answer and count as wrong:" in outcome.output
    for task, metric in (("tiny_choice", "letter_acc"), ("tiny_open", "exact_match"), ("tiny_likelihood", "acc")):
        samples = outcome.samples(task)
        assert len(samples) == len(tasks.rows)
        assert results["results"][task][f"{metric},none"] == pytest.approx(
            sum(sample[metric] for sample in samples) / len(samples)
        )
        for number, sample in enumerate(samples):
            assert sample.get("input", TEXT[task]).startswith(TEXT[task].format(**tasks.rows[number])[:20])
            if number >= 4:
                assert sample[metric] == 0
            elif task != "tiny_likelihood":
                assert sample["filtered_resps"] == logged[task, number, 0]
        if task == "tiny_likelihood":
            for number, sample in enumerate(samples[:4]):
                losses = [logged[task, number, option][0] for option in range(3)]
                assert sample["acc"] == float(losses.index(min(losses)) == tasks.rows[number]["answer"])
        else:
            assert ERROR_MARK in str(samples[4]["resps"])
            assert samples[0]["input"] == TEXT[task].format(**tasks.rows[0])


@pytest.fixture(scope="module")
def one_process(onevision, tasks, lmms_eval, tmp_path_factory) -> tuple[Outcome, Path]:
    """``tallva_onevision`` in one process, two requests at a time."""
    folder = tmp_path_factory.mktemp("one")
    log = folder / "log.jsonl"
    arguments = {"pretrained": onevision, "device": "cpu", "dtype": "float32", "max_frames": 8, "log": log}
    return run_lmms_eval(folder, "tallva_onevision", arguments, tasks, options=("--batch_size", "2")), log


def test_tallva_onevision(one_process, tasks):
    outcome, log = one_process
    records = read_log(log)
    check_log(records, tasks)
    check_results(outcome, tasks, records)


def test_several_processes_give_the_same(one_process, onevision, tasks, tmp_path):
    log = tmp_path / "log.jsonl"
    arguments = {"pretrained": onevision, "device": "cpu", "dtype": "float32", "max_frames": 8, "log": log}
    # `accelerate launch` starts several processes on GPUs by this very launcher; on CPUs it would take MPI.
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    # Five rows on two processes: one of them has a request to even out.
    options = ("--limit", "5")
    outcome = run_lmms_eval(
        tmp_path,
        "tallva_onevision",
        arguments,
        tasks,
        names="tiny_open",
        options=options,
        launcher=launcher,
        environment={"ACCELERATE_USE_CPU": "true"},
    )
    assert log.with_name("log.rank1.jsonl").is_file(), outcome.output[-3000:]
    alone = {(r["task"], r["doc_id"], r["index"]): r.get("response") for r in read_log(one_process[1])}
    records = read_log(log)
    assert sorted(record["doc_id"] for record in records) == list(range(5))
    assert all(r.get("response") == alone["tiny_open", r["doc_id"], 0] for r in records)
    assert outcome.results["throughput"]["avg_requests_without_answer"] == 1
    assert len(outcome.samples("tiny_open")) == 5


def environment(host: Path, hub: Path) -> dict[str, str]:
    """What lets a process find the host, and the tiny encoder in place of the hub."""
    names = ("PYTHONPATH", "HF_HUB_CACHE")
    return {name: value for name, value in tiny.environment(host, hub).items() if name in names}


def test_tallva(llava_tam, host, tasks, tmp_path):
    log = tmp_path / "log.jsonl"
    arguments = {"pretrained": llava_tam, "device": "cpu", "dtype": "float32", "max_frames": 8, "log": log}
    outcome = run_lmms_eval(
        tmp_path, "tallva", arguments, tasks, environment=environment(host, tmp_path), options=("--batch_size", "3")
    )
    records = read_log(log)
    check_log(records, tasks)
    check_results(outcome, tasks, records)


@pytest.fixture(scope="module")
def dense(llava, tmp_path_factory) -> tuple[Path, Path]:
    """A plain checkpoint of the host, and the hub cache with its encoder."""
    folder = tmp_path_factory.mktemp("dense")
    tiny.write_siglip(folder / "hub")
    return tiny.write_dense(folder / "llava-qwen-dense", folder / "hub"), folder / "hub"


@pytest.fixture(scope="module")
def two_videos(videos, tmp_path_factory) -> Tasks:
    """The tasks over two videos."""
    return write_tasks(tmp_path_factory.mktemp("two"), videos[:2])


@pytest.fixture(scope="module")
def baseline(dense, host, two_videos, tmp_path_factory) -> Outcome:
    """lmms-eval's own model on the plain checkpoint, with the pooling of its training."""
    pytest.importorskip("decord", reason="llava_vid reads videos with decord")
    arguments = {
        "pretrained": dense[0],
        "device": "cpu",
        "device_map": "auto",
        "torch_dtype": "bfloat16",
        "conv_template": "qwen_1_5",
        "max_frames_num": 2,
        "force_sample": True,
        "overwrite": False,
        "mm_spatial_pool_mode": "bilinear",
    }
    names, folder = "tiny_choice,tiny_open", tmp_path_factory.mktemp("baseline")
    return run_lmms_eval(
        folder, "llava_vid", arguments, two_videos, names=names, environment=environment(host, dense[1])
    )


def test_fixed_policy_gives_the_answers_of_llava_vid(baseline, dense, host, two_videos, tmp_path):
    arguments = {"pretrained": dense[0], "device": "cpu", "dtype": "bfloat16", "policy": "fixed:2:2"}
    outcome = run_lmms_eval(
        tmp_path,
        "tallva",
        arguments,
        two_videos,
        names="tiny_choice,tiny_open",
        environment=environment(host, dense[1]),
    )
    for task in ("tiny_choice", "tiny_open"):
        assert outcome.answers(task) == baseline.answers(task)
        assert all(outcome.answers(task))
        texts = [[sample["input"] for sample in run.samples(task)] for run in (outcome, baseline)]
        assert texts[0] == texts[1]
