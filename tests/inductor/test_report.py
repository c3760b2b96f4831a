"""The report of ``tam inductor eval``: its figures against counts made here, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tam_plugin.cli.main import main
from tam_plugin.inductor import Inductor
from tam_plugin.inductor.dataset import LabelledQuery
from tam_plugin.inductor.evaluation import DURATIONS_S, duration_robustness, paraphrase_drop

ROWS = [
    {"id": "a", "question": "What colour is the car?", "label": 1, "paraphrase": "The car has which colour?"},
    {"id": "b", "question": "Why is she crying?", "label": 7, "label2": 3, "options": ["hunger", "pain"]},
    {"id": "c", "question": "Put the events in order", "label": 4, "duration_s": 12},
    {"id": "d", "question": "What is the video mainly about?", "label": 6, "paraphrase": "Summarise the main topic."},
    {"id": "e", "question": "What does the sign say?", "label": 2},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.slow
def test_figures_and_pictures_of_a_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "report"
    assert main(["inductor", "eval", str(file), "--out", str(out), "--compare", "embedded", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert json.loads((out / "report.json").read_text()) == report
    inductor = Inductor.from_pretrained()
    types = [inductor.classify(r["question"], r.get("duration_s"), r.get("options")).task.index for r in ROWS]
    found = report["files"]["asked"]
    assert found["accuracy"] == sum(t == r["label"] for t, r in zip(types, ROWS, strict=True)) / 5
    for task, row in zip(types, ROWS, strict=True):
        assert found["confusion"][row["label"] - 1][task - 1] >= 1
    assert found["paraphrases"]["count"] == 2
    assert sum(b["count"] for b in found["buckets"]) == 5
    assert [row["accuracy"] for row in report["comparison"]] == [found["accuracy"]] * 2
    assert all(row["seconds_per_100"] > 0 for row in report["comparison"])
    text = (out / "report.md").read_text()
    assert "| asked | 5 |" in text and "8 OCR and Cross-modal Alignment" in text
    for name in ("confusion_asked.png", "calibration_asked.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"


def test_paraphrases_from_their_own_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = tmp_path / "said.jsonl"
    rows = [{"id": "b#p", "paraphrase_of": "b", "question": "For what reason is she in tears?", "label": 7}]
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["inductor", "eval", str(file), "--paraphrases", str(said), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["paraphrase_files"]["said"]
    inductor = Inductor.from_pretrained()
    before, after = (
        inductor.classify(q, options=["hunger", "pain"]).task.index for q in (ROWS[1]["question"], rows[0]["question"])
    )
    assert figures["count"] == 1 and figures["same_type"] == float(before == after)
    assert (figures["accuracy"], figures["accuracy_paraphrased"]) == (float(before == 7), float(after == 7))
    said.write_text(json.dumps(rows[0] | {"paraphrase_of": "z"}))
    assert main(["inductor", "eval", str(file), "--paraphrases", str(said)]) == 2
    assert "paraphrase_of = 'z' is the id of no query" in capsys.readouterr().err


def test_a_classifier_that_reads_lengths_is_seen() -> None:
    """The embedded one does not; a wrapper that does is reported as changing."""

    class Lengths:
        def __init__(self) -> None:
            self.inner = Inductor.from_pretrained()

        def classify_batch(self, queries, durations_s, options):
            long = [
                q if (d or 0) < 1000 else "What is the video mainly about?"
                for q, d in zip(queries, durations_s, strict=True)
            ]
            return self.inner.classify_batch(long, None, options)

    rows = [LabelledQuery("What colour is the car?", 1), LabelledQuery("Summarise the video", 6)]
    steady = duration_robustness(Inductor.from_pretrained(), rows)
    assert steady["changed"] == 0 and steady["largest_shift"] < 1e-6 and len(steady["accuracy"]) == len(DURATIONS_S)
    shaky = duration_robustness(Lengths(), rows)  # type: ignore[arg-type]
    assert shaky["changed"] == 0.5 and shaky["largest_shift"] > 0.5


def test_no_paraphrases_no_figure() -> None:
    assert paraphrase_drop(Inductor.from_pretrained(), [LabelledQuery("Why?", 7)]) is None
