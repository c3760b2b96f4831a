"""Bad input of ``tam plan-data``: exit code 2 and one line that names file and row or value."""

from __future__ import annotations

import fcntl
import json
import os

import pytest

from tam_plugin.budget.policy import DEFAULT_POLICY
from tests.plans.data import plan_data, row, write

Q = "What colour is the cup?"


@pytest.fixture
def bad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    contents = {
        "good.json": [row(1, Q, duration=9)],
        "text.json": [row(1, Q, video=None)],
        "empty.json": [],
    }
    for name, rows in contents.items():
        write(tmp_path / name, rows)
    (tmp_path / "table.csv").write_text("id,question\n1,Where?\n")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "none.yaml").write_text("datasets: []\n")
    (tmp_path / "list.yaml").write_text("datasets:\n- json_path: gone.json\n")
    (tmp_path / "huge.yaml").write_text(DEFAULT_POLICY.read_text().replace("max_frames: 120", "max_frames: 70000"))
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "array.json").write_text("[]")
    (tmp_path / "cut.json").write_text(json.dumps([row(1, Q), row(2, Q)])[:-40])
    return tmp_path


DATA = [
    ("gone.json", "there is no file 'gone.json'"),
    ("list.yaml", "there is no file 'gone.json'"),
    ("none.yaml", "'none.yaml' must hold a list 'datasets'"),
    ("table.csv", "'table.csv': expected instruction data in .json or .jsonl"),
    ("empty.json", "'empty.json' is empty"),
    ("empty.jsonl", "'empty.jsonl' is empty"),
    ("text.json", "'text.json': 1 rows, none about a video"),
    ("cut.json", "'cut.json' cannot be read as JSON: Expecting value (element 2, character "),
]

ARGUMENTS = [
    (["--video-folder", "gone"], "--video-folder 'gone': there is no such folder"),
    (["--batch-size", "0"], "--batch-size 0: expected"),
    (["--workers", "0"], "--workers 0: expected"),
    (["--newline-position", "row"], "expected one of grid, frame"),
    (["--model-max-length", "1"], "not one frame fits"),
    (["--model-max-length", "-1"], "--model-max-length -1: expected a whole number from 1 to"),
    (["--grid", "0"], "--grid 0: expected a whole number from 1 to"),
    (["--pool-mode", "mean"], "pool_mode = 'mean'"),
    (["--policy", "gone.yaml"], "gone.yaml"),
    (["--policy", "huge.yaml"], "max_frames = 70000: expected a whole number from 1 to 65535"),
    (["--inductor", "./gone"], "no Inductor at './gone'"),
    (["--model", "gone"], "--model 'gone' does not exist as a folder, and the hub's model of that name is not whole"),
    (["--model", "./gone"], "--model './gone' does not exist: expected"),
    (["--max-bad", "2"], "--max-bad 2.0: expected a share from 0 to 1"),
    (["--shard", "3/2"], "--shard '3/2': expected I/N"),
    (["--join"], "--join: --out 'out' holds no shards"),
    (["--join", "--shard", "1/2"], "--join and --shard exclude each other"),
    (["--model", "array.json"], "must hold a JSON object"),
    (["--out", "good.json"], "cannot be made a folder"),
    (["--out", ""], "empty name"),
    (["--out", "."], "which does not belong to plans"),
]


def refused(capsys, *argv, **more):
    assert plan_data(*argv, **more) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(("data", "message"), DATA)
def test_data(bad, capsys, data, message):
    assert message in refused(capsys, data, "out")
    assert not (bad / "out" / "plans.json").exists()


@pytest.mark.parametrize(("argv", "message"), ARGUMENTS)
def test_arguments(bad, capsys, argv, message):
    assert message in refused(capsys, "good.json", "out", *argv)


def test_the_layout_must_be_told(bad, capsys):
    assert "give --model-max-length" in refused(capsys, "good.json", "out", layout=())
    assert "has no tokenizer_model_max_length" in refused(
        capsys, "good.json", "out", "--model", "model.json", layout=()
    )
    told = ("--model-max-length", "9000")
    assert "give --newline-position" in refused(capsys, "good.json", "out", layout=told)


def test_finished_plans_of_something_else_stay(bad, capsys):
    assert plan_data("good.json", "out") == 0
    before = (bad / "out" / "plans.safetensors").read_bytes()
    capsys.readouterr()
    said = refused(capsys, "good.json", "out", "--newline-position", "frame")
    assert "finished plans made with other settings: layout.newline_position is 'frame', was 'grid'" in said
    write(bad / "good.json", [row(1, Q, duration=8.0)])
    assert "data[0].bytes is " in refused(capsys, "good.json", "out")
    assert (bad / "out" / "plans.safetensors").read_bytes() == before


def test_two_at_once(bad, capsys):
    (bad / "out").mkdir()
    with open(bad / "out" / "plans.journal.jsonl", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        said = refused(capsys, "good.json", "out")
        assert f"in use by another process (process {os.getpid()}): wait for it, end it, or give another" in said


def test_a_damaged_journal_is_named(bad, capsys):
    assert plan_data("text.json", "out") == 2
    journal = bad / "out" / "plans.journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b'{"rows": \n' + lines[1])
    capsys.readouterr()
    assert "plans.journal.jsonl:2: damaged" in refused(capsys, "text.json", "out")


def test_samples_with_one_key_are_refused(bad, capsys, monkeypatch):
    """Keys of 64 bits do not meet in a test, so this one makes do with two bits."""
    from tam_plugin.plans import keys, rows

    def short_key(*parts):
        return keys.sample_key(*parts)._replace(key=keys.sample_key(*parts).key & 3)

    monkeypatch.setattr(rows, "sample_key", short_key)
    write(bad / "many.json", [row(n, Q, duration=9) for n in range(5)])
    assert "have the same key but differ in id, video or question" in refused(capsys, "many.json", "out")


@pytest.mark.parametrize("damage", ["short", "format", "none"])
def test_damaged_plans(bad, damage):
    from tam_plugin.errors import InputError
    from tam_plugin.plans.table import Plans

    assert plan_data("good.json", "out") == 0
    out = bad / "out"
    if damage == "short":
        (out / "plans.safetensors").write_bytes((out / "plans.safetensors").read_bytes()[:-1])
    elif damage == "format":
        header = json.loads((out / "plans.json").read_text())
        (out / "plans.json").write_text(json.dumps(header | {"format": 2}))
    else:
        (out / "plans.json").unlink()
    message = {"short": "its header says", "format": "format 2, expected 1", "none": "no plans in"}[damage]
    with pytest.raises(InputError, match=message):
        Plans(out)
