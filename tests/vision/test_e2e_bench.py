"""The whole-answer benchmark: its ways, its rows, and its refusals; and the peak memory of a call."""

from __future__ import annotations

import argparse
import copy
import json

import numpy as np
import pytest

from tam_plugin.bench import e2e
from tam_plugin.bench.memory import peak_growth
from tam_plugin.cli.bench import describe
from tam_plugin.errors import InputError
from tam_plugin.taxonomy import TaskType


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    e2e.add_arguments(parser)
    return parser.parse_args(["--device", "cpu", "--duration", "1", "--rounds", "1", "--new-tokens", "2", *argv])


@pytest.mark.slow
def test_rows_are_budgets_of_every_task_type_beside_the_baseline():
    result = json.loads(json.dumps(e2e.run(arguments())))
    dense, same, *tam = result["rows"]
    assert (dense["frames"], dense["stride"], dense["visual_tokens"]) == (25, 2, 25 * 14 * 14 + 1)  # a second has 25
    assert (same["frames"], same["stride"]) == (dense["frames"], dense["stride"])
    assert same["flops_ratio"] > 1.0  # two experts a token instead of one
    assert dense["ratio"] == dense["memory_ratio"] == dense["flops_ratio"] == 1.0
    assert sorted(task for row in tam for task in row["tasks"]) == sorted(task.label for task in TaskType)
    assert len({(row["frames"], row["stride"]) for row in tam}) == len(tam) > 1
    for row in result["rows"]:
        parts = row["parts_s"]
        assert list(parts) == ["frames", "tower", "prefill", "decoding", "rest"]
        assert all(seconds > 0 for seconds in parts.values())
        assert row["peak_mib"] > 0 and row["cpu_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["seconds"] / dense["seconds"])
    text = describe(result, e2e.describe_rows)
    assert "1 s: dense at 64:2" in text and "toy shapes" in text


@pytest.mark.slow
def test_a_dense_checkpoint_is_its_own_baseline_and_a_tam_checkpoint_has_none(tmp_path):
    from tam_plugin import TamConfig
    from tam_plugin.patches.onevision import upgrade_dense
    from tam_plugin.patches.onevision.tiny import demo_dense_model

    dense, tokenizer = demo_dense_model(image_size=70)
    for name, model in (("dense", dense), ("tam", upgrade_dense(copy.deepcopy(dense), TamConfig()))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        result = e2e.run(arguments("--model", str(tmp_path / name), "--workdir", str(tmp_path / "videos")))
        first = result["rows"][0]
        assert first["name"] == f"1 s: {'dense' if name == 'dense' else 'TAM'} at 64:2"
        assert first["visual_tokens"] == 25 * 3 * 3 + 1
        assert ("not a dense one" in " ".join(result["notes"])) == (name == "tam")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--rounds", "0"], "--rounds 0: expected a whole number >= 1"),
        (["--new-tokens", "0"], "--new-tokens 0: expected a whole number >= 1"),
        (["--duration", "0"], "--duration 0: expected whole seconds >= 1"),
        (["--preset", "7b"], "--preset 7b: expected a CUDA GPU"),
        (["--preset", "tiny", "--model", "x"], "--preset tiny is the size of random weights"),
        (["--model", "nowhere"], "'nowhere'"),
    ],
)
def test_refusals(argv, message):
    with pytest.raises(InputError, match=message) as raised:
        e2e.run(arguments(*argv))
    assert "\n" not in str(raised.value)


def test_peak_growth_sees_what_is_freed_again():
    size = 96 * 2**20
    grown = peak_growth(lambda: np.ones(size, np.uint8).sum(), "cpu")
    if grown is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert size * 0.9 < grown < size * 2
