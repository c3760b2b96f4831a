"""The sweep over sizes of a mixture layer: a row for each, and what ``auto`` takes there."""

from __future__ import annotations

import json

import pytest
import torch

from tam_plugin.cli.main import main

SMALL = ("--rounds", "1", "--widths", "64", "192", "--tokens", "9", "300", "--device", "cpu")


def test_a_row_for_each_size_and_pass(capsys):
    assert main(["bench", "experts", *SMALL, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    sizes = [(row["dtype"], row["width"], row["tokens"], row["pass"]) for row in rows]
    assert len(set(sizes)) == len(rows) == 16
    assert all(row["ratio"] == pytest.approx(row["seconds_grouped"] / row["seconds_loop"]) for row in rows)
    # 4.5 rows per expert of 192 features in training; everything else is too narrow, too many or no training.
    grouped = [size for size, row in zip(sizes, rows, strict=True) if row["auto"] == "grouped"]
    assert grouped == [(dtype, 192, 9, "forward+backward") for dtype in ("float32", "bfloat16")]
    assert main(["bench", "experts", *SMALL, "--dtypes", "float32"]) == 0
    assert "192 x 768" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")
@pytest.mark.parametrize(("argv", "words"), [(("--tokens", "0"), "--tokens 0"), (("--device", "cuda"), "no CUDA GPU")])
def test_bad_arguments(capsys, argv, words):
    assert main(["bench", "experts", *argv]) == 2
    assert words in capsys.readouterr().err
