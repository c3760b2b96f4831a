"""Figures by hand: the demonstration model's, and the published sizes of SigLIP-so400m."""

from __future__ import annotations

import json

import pytest

from tam_plugin import TaskType

from .conftest import all_tensors, upcycle


def inspected(capsys, *argv) -> dict:
    capsys.readouterr()
    assert upcycle(*argv, "--inspect", "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_parameters_before_and_after_are_the_same_figures(write_dense, tmp_path, capsys):
    source = write_dense()
    before = inspected(capsys, source, "--num-experts", 8, "--top-k", 2)
    assert not (tmp_path / "tam").exists()
    assert upcycle(source, tmp_path / "tam", "--num-experts", 8, "--top-k", 2) == 0
    after = inspected(capsys, tmp_path / "tam")
    assert after["parameters"] == before["parameters"] and after["rows"] == before["rows"]
    tensors = all_tensors(tmp_path / "tam")
    assert after["parameters"]["all"]["total"] == sum(t.numel() for t in tensors.values())
    # Two layers whose MLP is 32 -> 64 -> 32; six of eight experts rest.
    expert = 2 * 32 * 64 + 64 + 32
    tower = after["parameters"]["tower"]
    assert tower["total"] - tower["activated"] == 2 * 6 * expert
    one_projector = 32 * 64 + 64 + 64 * 64 + 64
    assert after["parameters"]["projectors"] == {"total": 4 * one_projector, "activated": one_projector}


def test_operations_by_hand(write_dense, capsys):
    values = inspected(capsys, write_dense())
    assert [row["name"] for row in values["rows"]] == ["fixed baseline", *(task.label for task in TaskType)]
    base = values["rows"][0]
    assert (base["num_frames"], base["pool_stride"], base["of_baseline"]) == (64, 2, 1.0)
    # 25 patches a frame at stride 2: 3 × 3 tokens, and one newline at the end.
    n = 64 * 9 + 1
    assert base["visual_tokens"] == n
    layer = 8 * 25 * 32**2 + 4 * 25**2 * 32 + 4 * 25 * 32 * 64
    assert base["encoder_flops"] == 64 * (2 * 25 * 32 * 3 * 14**2 + 2 * layer)
    assert base["projector_flops"] == 64 * 25 * 2 * (32 * 64 + 64 * 64)
    weights = 64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128  # q and o, k and v of two of four heads, the gated MLP
    vocabulary = 261  # 256 bytes and five marks
    once = 16 * n + 2 * 64 * vocabulary  # rotary angles of heads 16 wide, the output layer
    assert base["prefill_flops"] == 2 * 2 * weights * n + 2 * 4 * n**2 * 64 + once
    for row in values["rows"][1:]:
        mixture = row["num_frames"] * 2 * (4 * 25 * 32 * 64 + 2 * 25 * 32 * 4)  # a second expert, and the router
        assert row["encoder_flops"] == row["num_frames"] * base["encoder_flops"] // 64 + mixture
        assert row["total_flops"] == sum(row[f"{part}_flops"] for part in ("encoder", "projector", "prefill"))


def test_longer_videos_cost_more(write_dense, capsys):
    source = write_dense()
    short, long = (inspected(capsys, source, "--duration", s)["rows"] for s in (5, 600))
    assert short[0] == long[0]
    assert all(a["total_flops"] < b["total_flops"] for a, b in zip(short[1:], long[1:], strict=True))


def test_the_table_for_people(write_dense, capsys):
    source = write_dense()
    capsys.readouterr()
    assert upcycle(source, "--inspect") == 0
    out = capsys.readouterr().out
    assert "2 of 4 experts, strides 1, 2, 3, 4" in out and all(task.label in out for task in TaskType)


@pytest.mark.parametrize(("duration", "words"), [("0", "duration"), ("nan", "duration"), ("-3", "duration")])
def test_durations_that_no_video_has(write_dense, capsys, duration, words):
    source = write_dense()
    capsys.readouterr()
    assert upcycle(source, "--inspect", "--duration", duration) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
