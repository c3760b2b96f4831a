"""``tam eval``: the paper's benchmarks through lmms-eval, and its ablations on a tiny model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import tam_plugin


def add_parser(subparsers) -> None:
    """Register the command."""
    text = "the paper's benchmarks and ablations"
    parser = subparsers.add_parser("eval", help=text, description=text)
    commands = parser.add_subparsers(dest="eval_command", required=True, metavar="COMMAND", parser_class=type(parser))
    text = "every row of the ablation tables on a tiny seeded model: what it answers and what it costs"
    ablations = commands.add_parser("ablations", help=text, description=text)
    ablations.add_argument("rows", nargs="*", metavar="ROW", help="rows such as tab10_lowest (all of them)")
    ablations.add_argument("--video", metavar="FILE", help="what the questions are about (the clip that ships)")
    ablations.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and draws (0)")
    ablations.add_argument("--json", action="store_true", help="print one JSON object")
    ablations.set_defaults(run=run_ablations)


def run_ablations(args: argparse.Namespace) -> int:
    """Print the table."""
    from tam_plugin.eval.ablations.table import describe, table

    video = args.video or str(Path(tam_plugin.__file__).with_name("assets") / "sample.mp4")
    rows = table(video, args.rows or None, args.seed)
    print(json.dumps({"seed": args.seed, "video": video, "rows": rows}) if args.json else describe(rows))
    return 0
