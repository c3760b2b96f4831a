"""The tower benchmark's rows, and its refusals."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

from tam_plugin.bench import tower
from tam_plugin.errors import InputError, TamError

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    tower.add_arguments(parser)
    return parser.parse_args(["--rounds", "1", *argv])


@pytest.fixture(autouse=True)
def tiny_preset(monkeypatch):
    monkeypatch.setitem(tower.PRESETS, "small", TINY)


def test_rows_have_a_host_and_towers_that_agree():
    result = json.loads(json.dumps(tower.run(arguments("--frames", "2", "--device", "cpu"))))
    names = [row["name"] for row in result["rows"]]
    assert len(names) == len(set(names)) == 9
    hosts = [row for row in result["rows"] if row["name"].endswith(tower.DENSE)]
    assert [row["ratio"] for row in hosts] == [1.0, 1.0]
    assert result["tokens"] == 2 * 729
    assert set(result["max_difference_from_dense"]) == {
        *("mixture, grouped", "mixture, expert by expert", "mixture, auto"),
    }
    assert max(result["max_difference_from_dense"].values()) <= 1e-5


def test_a_tower_that_computes_something_else_is_not_timed():
    args = arguments("--device", "cpu")
    towers = tower._towers(args, torch.device("cpu"), torch.float32)
    with torch.no_grad():
        next(p for n, p in towers["mixture, grouped"].named_parameters() if "fc2.bias" in n)[:, 0].add_(1.0)
    with pytest.raises(TamError, match=r"mixture, grouped: differs from the dense tower by .*; not timed"):
        tower._check_equal(towers, torch.randn(1, 3, 384, 384), 1e-5)


@pytest.mark.parametrize("argv", [("--frames", "0"), ("--rounds", "0")])
def test_counts_below_one_are_refused(argv):
    with pytest.raises(InputError, match=f"{argv[0]} 0: expected a whole number >= 1"):
        tower.run(arguments(*argv))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA GPU"):
        tower.run(arguments("--device", "cuda"))
