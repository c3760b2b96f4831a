"""The commands on real input, end to end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from tam_plugin import TaskType
from tam_plugin.cli.main import main

PLAN_KEYS = [
    "task",
    "probabilities",
    "confidence",
    "duration_s",
    "num_frames",
    "pool_stride",
    "tokens_per_frame",
    "visual_tokens",
    "fallback",
    "timestamps_s",
    "sampler",
    "damaged_frames",
]


def run_json(capsys, *argv):
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_plan_prints_one_json_object(capsys, sample_clip):
    values, err = run_json(capsys, "plan", str(sample_clip), "--query", "What word is printed on the sign?")
    assert list(values) == PLAN_KEYS and err == ""
    assert list(values["probabilities"]) == [t.label for t in TaskType]
    assert values["task"] == TaskType.OCR_CROSS_MODAL.label
    assert sum(values["probabilities"].values()) == pytest.approx(1.0)
    assert values["confidence"] == max(values["probabilities"].values())
    times = values["timestamps_s"]
    assert len(times) == values["num_frames"] and times == sorted(times) and times[0] == 0.0
    assert times[-1] < values["duration_s"]


def test_the_question_decides_frames_and_resolution(capsys, sample_clip):
    plan = ("plan", str(sample_clip), "--query")
    fine, _ = run_json(capsys, *plan, "What word is printed on the screen at the start?")
    many, _ = run_json(capsys, *plan, "Put the events in chronological order")
    assert TaskType.from_label(fine["task"]).sensitivity.value == "resolution"
    assert TaskType.from_label(many["task"]).sensitivity.value == "frames"
    assert many["num_frames"] > fine["num_frames"] and many["pool_stride"] > fine["pool_stride"]


def test_options_and_policy_reach_the_decision(capsys, sample_clip, tmp_path):
    from tam_plugin.budget.policy import DEFAULT_POLICY

    policy = tmp_path / "policy.yaml"
    policy.write_text(DEFAULT_POLICY.read_text().replace("max_frames: 120", "max_frames: 3"))
    values, _ = run_json(
        capsys, "plan", str(sample_clip), "--query", "Which one?", "--options", "red", "blue", "--policy", str(policy)
    )
    assert values["num_frames"] == 3


def test_contact_sheet_holds_every_frame(capsys, sample_clip, tmp_path):
    sheet = tmp_path / "sheet.png"
    query = ("--query", "What color is the sign?", "--contact-sheet", str(sheet))
    assert main(["plan", str(sample_clip), *query]) == 0
    out = capsys.readouterr().out
    assert "task        Static Attributes Recognition" in out and str(sheet) in out
    with Image.open(sheet) as picture:
        assert picture.format == "PNG" and picture.width >= 160


def test_snapped_frames_keep_their_true_times(capsys, sample_clip):
    argv = ("plan", str(sample_clip), "--query", "Put the events in chronological order")
    exact, _ = run_json(capsys, *argv)
    snapped, _ = run_json(capsys, *argv, "--snap-to-keyframes")
    interval = exact["timestamps_s"][1] - exact["timestamps_s"][0]
    moved = [abs(a - b) for a, b in zip(exact["timestamps_s"], snapped["timestamps_s"], strict=True)]
    assert max(moved) <= interval / 2 + 0.05


def test_the_sampler_is_chosen_by_name(capsys, sample_clip):
    argv = ("plan", str(sample_clip), "--query", "Put the events in chronological order")
    exact, _ = run_json(capsys, *argv)
    snapped, _ = run_json(capsys, *argv, "--snap-to-keyframes")
    assert snapped["timestamps_s"] != exact["timestamps_s"]
    for options, expected in (
        (("--sampler", "uniform"), exact),
        (("--sampler", "keyframe"), snapped),
        (("--sampler", "keyframe", "--snap-to-keyframes"), snapped),
    ):
        assert run_json(capsys, *argv, *options)[0] == expected


@pytest.mark.parametrize(
    "options, told",
    [
        (("--sampler", "nearest"), "sampler 'nearest': expected one of uniform, keyframe"),
        (("--sampler", ""), "sampler '': expected one of uniform, keyframe"),
        (("--sampler", "uniform", "--snap-to-keyframes"), "--snap-to-keyframes means --sampler keyframe"),
    ],
)
def test_samplers_that_cannot_be_meant_are_refused(capsys, sample_clip, options, told):
    assert main(["plan", str(sample_clip), "--query", "What is it?", *options]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1


def test_ask_says_that_the_demonstration_model_knows_another_world(capsys, sample_clip):
    values, err = run_json(
        capsys, "ask", str(sample_clip), "--query", "What color is the sign?", "--max-new-tokens", "4"
    )
    assert list(values) == [*PLAN_KEYS, "answer", "notice"]
    assert "knows only the drawn clips" in values["notice"] and err.count("\n") == 1 and "--model" in err
    # This host ends a video with one newline token.
    assert values["visual_tokens"] == values["num_frames"] * values["tokens_per_frame"] + 1
    # What the model would say of a video that it cannot know must not look like an answer.
    assert values["answer"] is None
    assert main(["ask", str(sample_clip), "--query", "What color is the sign?"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("answer      none: the demonstration model does not know this video")
    assert err == f"tam: note: {values['notice']}\n"


def test_answers_are_printed_as_text(capsys, monkeypatch):
    from tam_plugin.patches.onevision import Answer, VideoAssistant
    from tam_plugin.patches.onevision.assistant import DEMO_FOLDER

    clip = str(next(DEMO_FOLDER.glob("clip*.mp4")))
    query = ("--query", "What does the door do?", "--max-new-tokens", "8")
    values, err = run_json(capsys, "ask", clip, *query)
    assert values["notice"] is None and err == "" and values["answer"].startswith("door ")
    assert main(["ask", clip, *query]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"answer      {values['answer']}"

    said = 'It\'s "open":\nl\u00e4uft \x1b[2J\u202e'
    monkeypatch.setattr(VideoAssistant, "answer", lambda *_, **__: Answer(said, 5, 4, "prompt"))
    assert main(["ask", clip, *query]) == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines == ['answer      It\'s "open":', "            l\u00e4uft \\x1b[2J\\u202e"]
    assert run_json(capsys, "ask", clip, *query)[0]["answer"] == said


def test_ask_runs_a_saved_checkpoint(capsys, sample_clip, tmp_path):
    from tam_plugin import TamConfig
    from tam_plugin.patches.onevision import upgrade_dense
    from tam_plugin.patches.onevision.tiny import demo_dense_model

    dense, tokenizer = demo_dense_model(seed=3, image_size=84, patch_size=14)
    upgrade_dense(dense, TamConfig()).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    argv = ("--model", str(tmp_path), "--max-new-tokens", "4", "--device", "cpu")
    values, err = run_json(capsys, "ask", str(sample_clip), "--query", "What happens?", *argv)
    side = -(-6 // values["pool_stride"])
    assert values["notice"] is None and err == "" and values["tokens_per_frame"] == side * side


def test_a_long_query_is_cut_with_one_notice(capsys, sample_clip, monkeypatch):
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("What word is on the sign? " * 40_000))
    values, err = run_json(capsys, "plan", str(sample_clip), "--query", "-")
    assert err.startswith("tam: note: ") and err.count("\n") == 1
    assert values["task"] == TaskType.OCR_CROSS_MODAL.label


@pytest.mark.slow
def test_bench_prints_ratios(capsys):
    argv = ("bench", "tower", "--frames", "1", "--rounds", "1", "--preset", "small")
    values, _ = run_json(capsys, *argv)
    assert len(values["rows"]) >= 3 and any(row["ratio"] == 1.0 for row in values["rows"])
    for row in values["rows"]:
        assert set(row) >= {"name", "seconds", "ratio"} and row["seconds"] > 0


def test_command_line_starts_without_torch():
    code = (
        "import sys; from tam_plugin.cli.main import build_parser; import tam_plugin; tam_plugin.TamConfig; "
        "build_parser(); print([m for m in ('torch', 'transformers', 'av', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
