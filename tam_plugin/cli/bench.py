"""``tam bench``: each way of a job beside the host's way, in one run; ratios, because absolute times travel badly."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from typing import Any

BENCHES = {
    "video": "64 frames of a ten-minute video against the host's decord path",
    "preprocess": "frames to encoder input against the host's per-frame processor",
    "tower": "mixture vision tower against the dense tower and a per-expert loop",
    "experts": "one mixture layer as one grouped product and expert by expert, over sizes, and what auto takes",
    "step": "one stage-3 training step of TAM against the dense host at the same visual tokens",
    "e2e": "a whole answer at TAM's budgets against the dense model's fixed 64 frames at stride 2",
    "inductor": "the embedded Inductor against a SmolLM2-135M-shaped classifier",
}


def add_parser(subparsers) -> None:
    """Register the command and one subcommand a benchmark."""
    parser = subparsers.add_parser("bench", help="benchmarks against the host's way of doing the same")
    benches = parser.add_subparsers(dest="bench", required=True, metavar="NAME", parser_class=type(parser))
    for name, text in BENCHES.items():
        bench = benches.add_parser(name, help=text, description=text)
        bench.add_argument("--json", action="store_true", help="print one JSON object")
        importlib.import_module(f"tam_plugin.bench.{name}").add_arguments(bench)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one benchmark and print its rows."""
    bench = importlib.import_module(f"tam_plugin.bench.{args.bench}")
    result = bench.run(args)
    print(json.dumps(result) if args.json else describe(result, getattr(bench, "describe_rows", _table)))
    return 0


def describe(result: dict[str, Any], table: Callable[[list[dict[str, Any]]], list[str]] | None = None) -> str:
    """Context lines, then one row per way: as ``table`` has them, or name, median seconds, ratio."""
    context = [f"{key}: {value}" for key, value in result.items() if key != "rows"]
    return "\n".join([*context, *(table or _table)(result["rows"])])


def _table(rows: list[dict[str, Any]]) -> list[str]:
    width = max(len(row["name"]) for row in rows)
    lines = [f"{row['name']:<{width}}  {row['seconds']:>10.4f} s  {row['ratio']:>7.2f}x" for row in rows]
    return [f"{'':<{width}}  {'median':>12}  {'ratio':>8}", *lines]
