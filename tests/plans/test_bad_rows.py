"""Rows that training cannot use: named before training, bounded by training's rule, never the end of a run."""

from __future__ import annotations

import json
import os

import pytest

from tam_plugin.cli.plan_data import TOO_MANY_BAD
from tam_plugin.plans.bad_rows import read_skip_list, row_digest, too_many
from tam_plugin.plans.table import UNKNOWN, Plans
from tests.plans.data import plan_data, questions, row, write
from tests.video.clips import make_clip

Q = "What colour is the cup?"
MALFORMED = {
    "no human turn": row(2, Q, conversations=[{"from": "gpt", "value": "Yes."}]),
    "the query is empty": row(2, Q, conversations=[{"from": "human", "value": "<image>\n"}]),
    "no human turn in 'conversations'": row(2, Q, conversations="Where?"),
    "'video' must be the path of one video": row(2, Q, video=["a.mp4", "b.mp4"]),
    "expected a JSON object, found int": 7,
    "half a character": row(2, "\ud800?"),
    "no 'conversations'": {"id": "2", "image": "a.png"},
}


def listed(out) -> list[dict]:
    return [json.loads(line) for line in (out / "bad_rows.jsonl").read_text().splitlines()[1:]]


def test_malformed_rows_are_left_out_counted_and_named(tmp_path, capsys):
    rows = [row(1, Q, duration=9), *MALFORMED.values(), row(3, Q, duration=9)]
    data = write(tmp_path / "data.json", rows)
    out = tmp_path / "out"
    assert plan_data(data, out, "--max-bad", "0.9") == 0
    counts = json.loads((out / "plans.json").read_text())["counts"]
    assert counts["rows_with_video"] == counts["samples"] == len(Plans(out)) == 2
    assert counts["bad_rows"]["all"] == counts["bad_rows"]["malformed"] == len(MALFORMED)
    assert counts["rows"] == len(rows) and counts["rows_without_video"] == 0
    err = capsys.readouterr().err
    for number, (reason, bad, entry) in enumerate(zip(MALFORMED, MALFORMED.values(), listed(out), strict=True), 2):
        assert entry["where"] == f"{data}:{number}" and reason in entry["reason"]
        assert entry["sample"] == row_digest(json.loads(json.dumps(bad)))
        assert (f"{data}:{number}: " in err) == (number < 7)
    assert plan_data(data, tmp_path / "strict") == TOO_MANY_BAD


def test_nothing_but_malformed_rows_makes_no_plans(tmp_path):
    data = write(tmp_path / "data.json", [MALFORMED["no human turn"]])
    for _ in range(2):
        assert plan_data(data, tmp_path / "out", "--max-bad", "1") == TOO_MANY_BAD
    assert len(listed(tmp_path / "out")) == 1 and not (tmp_path / "out" / "plans.json").exists()


def test_a_wrong_video_folder_is_told_with_names(tmp_path, capsys):
    """Twenty of twenty: training would stop, so the command fails, whatever share is allowed."""
    (tmp_path / "elsewhere").mkdir()
    data = write(tmp_path / "data.json", [row(n, q) for n, q in enumerate(questions(20))])
    out = tmp_path / "out"
    arguments = ("--video-folder", str(tmp_path / "elsewhere"), "--workers", "1", "--max-bad", "1")
    assert plan_data(data, out, *arguments) == TOO_MANY_BAD
    err = capsys.readouterr().err
    assert "training cannot use 20 of 20 rows" in err and f"{data}:1: 0.mp4: " in err
    assert [entry["name"] for entry in listed(out)] == [f"{n}.mp4" for n in range(20)]
    assert all("elsewhere" in entry["reason"] for entry in listed(out))


@pytest.mark.parametrize(
    ("bad", "total", "share", "stops"),
    [
        (5, 200, 0.001, False),
        (6, 200, 0.001, True),
        (100, 100_000, 0.001, False),
        (101, 100_000, 0.001, True),
        (4, 5, 0.001, False),
        (5, 5, 0.001, True),
        (1, 200, 0, True),
        (0, 200, 0, False),
        (0, 0, 0.001, False),
        (3, 3, 1, True),
    ],
)
def test_the_rule(bad, total, share, stops):
    assert too_many(bad, total, share) == stops


def test_a_video_that_is_repaired_is_planned_by_the_same_command(tmp_path):
    """The result is that of a run that never met the damage, and what is not repaired is still listed."""
    media = tmp_path / "media"
    media.mkdir()
    make_clip(media / "whole.mp4", 30, fps=3)
    for name in ("broken.mp4", "lost.mp4"):
        (media / name).write_bytes(b"not a video")
    rows = [row(n, q, video=f"{v}.mp4") for n, q in enumerate(questions(6)) for v in ("whole", "broken", "lost")]
    data = write(tmp_path / "data.json", rows)
    arguments = ("--video-folder", str(media), "--workers", "1", "--max-bad", "0.9")
    assert plan_data(data, tmp_path / "out", *arguments) == 0
    assert len(listed(tmp_path / "out")) == 12
    os.replace(media / "whole.mp4", media / "broken.mp4")
    make_clip(media / "whole.mp4", 30, fps=3)
    assert plan_data(data, tmp_path / "out", *arguments) == plan_data(data, tmp_path / "anew", *arguments) == 0
    for name in ("plans.safetensors", "plans.json", "bad_rows.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "anew" / name).read_bytes()
    assert {entry["name"] for entry in listed(tmp_path / "out")} == {"lost.mp4"}
    make_clip(media / "lost.mp4", 30, fps=3)
    assert plan_data(data, tmp_path / "out", *arguments) == 0
    assert sorted(os.listdir(tmp_path / "out")) == ["plans.json", "plans.safetensors"]


def test_a_video_is_opened_once_whatever_its_name_looks_like(tmp_path):
    from tam_plugin.plans.probing import Prober

    make_clip(tmp_path / "a.mp4", 3, fps=3)
    prober = Prober(str(tmp_path), 2.0, 1)
    try:
        first = prober.get(["a.mp4"])
        (tmp_path / "a.mp4").unlink()
        assert prober.get(["./a.mp4", ".//a.mp4"]) == first * 2 and first[0].num_frames == 3
    finally:
        prober.close()


def test_a_line_that_is_not_json_fails_whatever_is_allowed(tmp_path, capsys):
    """The host's loader fails at it."""
    data = write(tmp_path / "data.jsonl", [row(n, Q, duration=9) for n in range(20)])
    data.write_text(data.read_text() + '{"id": "2", "vid\n')
    assert plan_data(data, tmp_path / "out", "--max-bad", "1") == TOO_MANY_BAD
    assert f"{data}:21: the row: expected a JSON object" in capsys.readouterr().err
    assert len(Plans(tmp_path / "out")) == 20 and not read_skip_list(str(tmp_path / "out" / "bad_rows.jsonl")).samples


def test_durations_that_are_none_count_for_nothing(tmp_path, capsys):
    """As in training, which opens the video: they are planned as unknown, and the report says how many."""
    bad = [row(n, Q, duration=value) for n, value in enumerate(("short", 0, -1, True))]
    twice = [row(9, Q, duration=10), row(9, Q, duration=20), row(9, Q)]
    out = tmp_path / "out"
    assert plan_data(write(tmp_path / "data.jsonl", [*bad, *twice, row(8, Q, duration=10)]), out) == 0
    plans = Plans(out)
    flags = plans.column("flags") & UNKNOWN
    assert len(plans) == 6 and flags.sum() == 5
    for key in plans.column("key")[flags > 0].tolist():
        assert sum(plans.distribution(key, 10.0).probabilities) == pytest.approx(1)
    counts = plans.header["counts"]
    assert (counts["bad_durations"], counts["contradictory_durations"]) == (4, 1)
    assert "not a number of seconds above 0: 4; samples whose rows give different ones: 1." in capsys.readouterr().out
