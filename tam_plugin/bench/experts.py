"""``tam bench experts``: a mixture layer as one grouped product and as a loop, over sizes, and what ``auto`` takes."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tam_plugin.bench.timing import compare
from tam_plugin.config import MoeConfig
from tam_plugin.errors import InputError

if TYPE_CHECKING:
    import torch

    from tam_plugin.vision import MoeMlp

GROUPED, LOOP = "grouped", "reference"
WIDTHS = {64: 128, 192: 768, 384: 1536, 1152: 4304}
"""Input width of the experts: the width between their layers. The last is SigLIP-so400m's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of ``tam bench experts``."""
    parser.add_argument(
        "--widths", type=int, nargs="+", choices=WIDTHS, default=[64, 384, 1152], metavar="D", help="64 192 384 1152"
    )
    parser.add_argument("--tokens", type=int, nargs="+", default=[81, 729, 1458], metavar="N", help="tokens per call")
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--experts", type=int, default=4, help="experts (default: 4)")
    parser.add_argument("--top-k", type=int, default=2, help="experts per token (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Time forward without gradients and forward + backward of both ways, interleaved.

    A ratio is the grouped product's seconds over the loop's: above 1 the loop is faster. One thread on a CPU is timed
    in CPU seconds, which other processes disturb less.

    Raises:
        InputError: a count below 1, or ``cuda`` without a GPU.
    """
    import torch

    for name, value in (("rounds", args.rounds), *(("tokens", n) for n in args.tokens)):
        if value < 1:
            raise InputError(f"--{name} {value}: expected a whole number >= 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA GPU here; use --device cpu")
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    by_cpu = device == "cpu" and torch.get_num_threads() == 1
    config = MoeConfig(num_experts=args.experts, top_k=args.top_k)
    rows = []
    for dtype in args.dtypes:
        for width in args.widths:
            layer = _layer(width, config, device, getattr(torch, dtype))
            for tokens in args.tokens:
                inputs = torch.randn(1, tokens, width, device=device, dtype=getattr(torch, dtype))
                for trains in (False, True):
                    found = _compare(layer, inputs, trains, args.rounds, time.process_time if by_cpu else None)
                    where = {"dtype": dtype, "width": width, "inner": WIDTHS[width], "tokens": tokens}
                    rows.append({**where, "pass": "forward+backward" if trains else "forward", **found})
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "seconds": "of CPU time" if by_cpu else "by the clock",
        "experts": args.experts,
        "top_k": args.top_k,
        "rounds": args.rounds,
        "rows": rows,
    }


def describe_rows(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each size and pass."""
    lines = [
        f"{'dtype':<9} {'experts':>12} {'tokens':>6}  {'pass':<17} {'grouped':>10} {'loop':>10} {'ratio':>6}  auto"
    ]
    for row in rows:
        size = f"{row['width']} x {row['inner']}"
        lines.append(
            f"{row['dtype']:<9} {size:>12} {row['tokens']:>6}  {row['pass']:<17} {row['seconds_grouped']:>8.4f} s "
            f"{row['seconds_loop']:>8.4f} s {row['ratio']:>6.2f}  {row['auto']}"
        )
    return lines


def _layer(width: int, config: MoeConfig, device: str, dtype: torch.dtype) -> MoeMlp:
    import torch
    from torch import nn

    from tam_plugin.vision import MoeMlp

    torch.manual_seed(0)
    inner = WIDTHS[width]
    layer = MoeMlp(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width), config)
    return layer.to(device, dtype)


def _compare(
    layer: MoeMlp, inputs: torch.Tensor, trains: bool, rounds: int, clock: Callable[[], float] | None
) -> dict[str, Any]:
    import torch

    experts = layer.experts

    def run_as(backend: str) -> Callable[[], None]:
        def call() -> None:
            experts.backend = backend
            with torch.set_grad_enabled(trains):
                layer.zero_grad(set_to_none=True)
                tokens = inputs.clone().requires_grad_(trains)
                out = layer(tokens)
                if trains:
                    out.float().square().mean().backward()
            if inputs.is_cuda:
                torch.cuda.synchronize()

        return call

    medians = compare({way: run_as(way) for way in (GROUPED, LOOP)}, rounds, clock or time.perf_counter)
    experts.backend = "auto"
    rows_per_expert = inputs.shape[1] * layer.config.top_k / layer.config.num_experts
    with torch.set_grad_enabled(trains):
        auto = experts.backend_for(rows_per_expert)
    return {
        "seconds_grouped": medians[GROUPED],
        "seconds_loop": medians[LOOP],
        "ratio": medians[GROUPED] / medians[LOOP],
        "auto": "grouped" if auto == GROUPED else "loop",
    }
