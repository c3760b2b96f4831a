"""``tam bench``: each way of a job beside the host's way, in one run; ratios, because absolute times travel badly."""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

BENCHES = {
    "video": "64 frames of a ten-minute video against the host's decord path",
    "preprocess": "frames to encoder input against the host's per-frame processor",
    "tower": "mixture vision tower against the dense tower and a per-expert loop",
    "step": "one stage-3 training step of TAM against the dense host at the same visual tokens",
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
    result = importlib.import_module(f"tam_plugin.bench.{args.bench}").run(args)
    print(json.dumps(result) if args.json else describe(result))
    return 0


def describe(result: dict[str, Any]) -> str:
    """Context lines, then a row a way: name, median seconds, ratio."""
    context = [f"{key}: {value}" for key, value in result.items() if key != "rows"]
    width = max(len(row["name"]) for row in result["rows"])
    table = [f"{row['name']:<{width}}  {row['seconds']:>10.4f} s  {row['ratio']:>7.2f}x" for row in result["rows"]]
    return "\n".join([*context, f"{'':<{width}}  {'median':>12}  {'ratio':>8}", *table])
