"""Whether a row was right, from what the tasks of lmms-eval say of it."""

from __future__ import annotations

import importlib
import json

import pytest

from tam_plugin.eval.report.samples import read_samples, score_of
from tests.eval_report.material import lines

OPTIONS = ["runs", "sits"]
DOC = {
    **{"question": "What does he do?", "options": OPTIONS, "candidates": OPTIONS, "option": OPTIONS, "id": 1},
    **{"question_id": 1, "video_id": "v", "video_name": "v", "video_idx": "v", "videoID": "v", "video": "v"},
    **{"duration": "short", "domain": "d", "sub_category": "s", "task_type": "t", "category": "c", "area": "a"},
    **{"correct_choice": 1, "duration_group": 15, "question_category": "q", "answer_id": "1", "type": "t", "dim": "t"},
}


@pytest.mark.parametrize(
    ("module", "function", "doc", "right", "wrong"),
    [
        ("videomme.utils", "videomme_process_results", {"answer": "B"}, "B", "A"),
        ("mvbench.utils", "mvbench_process_results", {"answer": "sits"}, "(B) sits", "(A) runs"),
        (
            "egoschema.utils",
            "egoschema_process_results_generation",
            {"answer": "1", "option": ["A. runs", "B. sits", "C. eats", "D. goes", "E. lies"]},
            "B",
            "A",
        ),
        ("longvideobench.utils", "longvideobench_process_results", {"option4": "N/A"}, "B", "A"),
        ("mlvu.utils", "mlvu_process_results", {"answer": "B"}, "B", "A"),
        ("perceptiontest.val.utils", "perceptiontest_val_process_results_mc", {}, "B", "A"),
        ("tempcompass.utils", "tempcompass_process_results_yes_no", {"answer": "yes"}, "yes", "no"),
        ("tempcompass.utils", "tempcompass_process_results_multi_choice", {"answer": "B. sits"}, "B", "A"),
        ("nextqa.utils", "nextqa_mc_process_results", {"answer": 1, "a0": "runs", "a1": "sits"}, "B", "A"),
    ],
)
def test_what_the_tasks_of_the_harness_say(module, function, doc, right, wrong, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    pytest.importorskip("lmms_eval", reason="needs lmms-eval")
    process = getattr(importlib.import_module(f"lmms_eval.tasks.{module}"), function)
    row = {**DOC, **{f"a{n}": "other" for n in range(2, 5)}, **{f"option{n}": "N/A" for n in range(5)}, **doc}
    row |= {"option0": "runs", "option1": "sits"}
    for answer, score in ((right, 1.0), (wrong, 0.0)):
        said = json.loads(json.dumps(process(row, [answer]), default=str))  # as in the samples file
        scores = [found for metric in said if (found := score_of(said[metric])) is not None]
        assert scores and set(scores) == {score}, said


@pytest.mark.parametrize(
    ("value", "score"),
    [
        (True, 1.0),
        (0.25, 0.25),
        ({"Correctness": "Yes", "score": 4}, 1.0),
        ({"Correctness": "no", "score": 4}, 0.0),
        ({"pred_answer": "A", "answer": "A"}, 1.0),
        ({"0": 30.0, "qtype": "x"}, None),
        ({"score": 4}, None),
        (62.5, None),
        (float("nan"), None),
        ("A", None),
        (None, None),
    ],
)
def test_scores_of_rows(value, score):
    assert score_of(value) == score


def test_the_first_metric_with_a_score_of_every_row_is_read(tmp_path):
    file = tmp_path / "samples.jsonl"
    rows = [{"doc_id": 1, "wups": {"0": 3.0}, "half": 1, "acc": 0}, {"doc_id": 0, "wups": {"0": 1.0}, "acc": 1}]
    lines(file, [{**row, "input": "one\u2028two"} for row in rows])
    file.write_text(file.read_text().replace("\\u2028", "\u2028"), encoding="utf-8")
    found = read_samples(file, ["alias", "wups", "half", "acc", "acc_stderr"])
    assert {row: sample.score for row, sample in found.items()} == {0: 1.0, 1: 0.0}
    assert {sample.score for sample in read_samples(file, ["wups", "half"]).values()} == {None}
