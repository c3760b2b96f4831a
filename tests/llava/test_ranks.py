"""Processes whose samples differ in stride, or are an image or text alone, train what one process would."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests import ranks
from tests.llava import rank_model

pytestmark = pytest.mark.usefixtures("llava")


def test_gradients_arrive_in_one_order_whatever_a_rank_sees() -> None:
    """ZeRO-2 adds up buckets that ranks fill in this order."""
    first, *others = ranks.orders(rank_model)
    assert all(other == first for other in others)


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    """DDP, which refuses parameters without a gradient, and each stage of ZeRO where DeepSpeed is there."""
    ways = [way for way in ranks.WAYS_OF_TWO if way == "ddp" or importlib.util.find_spec("deepspeed")]
    ranks.together("llava", ways, 2, tmp_path)
    ranks.check(rank_model, ways, 2, tmp_path)
    if "zero1" not in ways:
        pytest.skip("DDP passed; DeepSpeed is not installed (the extra deepspeed), so ZeRO was not run")


@pytest.mark.slow
def test_four_processes(tmp_path: Path) -> None:
    ranks.together("llava", ["ddp"], 4, tmp_path)
    ranks.check(rank_model, ["ddp"], 4, tmp_path)
