"""``tam eval``: the paper's benchmarks through lmms-eval, and its ablations on a tiny model."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import tam_plugin
from tam_plugin.errors import InputError, require

DESCRIPTION = (
    "Benchmarks through an unmodified lmms-eval, one process each. Rerun the same command to resume a killed run. "
    "Without --suite, give a command: ablations."
)


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("eval", help="the paper's benchmarks and ablations", description=DESCRIPTION)
    parser.add_argument("--suite", metavar="NAME", help="paper (Tab. 1), or a YAML file of benchmarks")
    parser.add_argument("--model", metavar="NAME", default="tallva", help="tallva (default) or tallva_onevision")
    parser.add_argument("--model-args", metavar="ARGS", help="pretrained=PATH,... as lmms-eval takes them")
    parser.add_argument("--out", metavar="DIR", help="folder for results, sample logs and output")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="requests per batch (default: 1)")
    parser.add_argument(
        "--launcher", default="", metavar="WORDS", help="words before -m lmms_eval, such as 'accelerate launch'"
    )
    parser.add_argument(
        "--lmms-args", default="", metavar="WORDS", help="further lmms-eval options, such as '--limit 8'"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands without running them")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_suite)
    commands = parser.add_subparsers(dest="eval_command", metavar="COMMAND", parser_class=type(parser))
    text = "every row of the ablation tables on a tiny seeded model: what it answers and what it costs"
    ablations = commands.add_parser("ablations", help=text, description=text)
    ablations.add_argument("rows", nargs="*", metavar="ROW", help="rows such as tab10_lowest (default: all)")
    ablations.add_argument("--video", metavar="FILE", help="video to ask about (default: the shipped clip)")
    ablations.add_argument("--seed", type=int, default=0, metavar="N", help="seed of weights and draws (default: 0)")
    ablations.add_argument("--json", action="store_true", help="print one JSON object")
    ablations.set_defaults(run=run_ablations)


def run_suite(args: argparse.Namespace) -> int:
    """Run the benchmarks that are not finished and print the table; returns 1 if one failed."""
    from tam_plugin.eval.suite import Run, describe, load_suite, summarize
    from tam_plugin.eval.suite import run_suite as run_all
    from tam_plugin.eval.suite.running import commands

    for option in ("suite", "model_args", "out"):
        if not getattr(args, option):
            raise InputError(f"tam eval needs --{option.replace('_', '-')} (or a command: ablations)")
    if args.batch_size < 1:
        raise InputError(f"--batch-size {args.batch_size}: expected at least 1")
    suite = load_suite(args.suite)
    run = Run(
        model=args.model,
        model_args=args.model_args,
        out=Path(args.out).expanduser().resolve(),
        batch_size=args.batch_size,
        launcher=tuple(shlex.split(args.launcher)),
        more=tuple(shlex.split(args.lmms_args)),
    )
    if args.dry_run:
        for benchmark, line, left_out in commands(suite, run):
            print("\n".join(f"# {text}" for text in (benchmark.name, left_out, benchmark.note) if text))
            if line:
                print(line)
        return 0
    require("lmms_eval", needed_for="tam eval --suite", extra="eval")
    outcomes = run_all(suite, run, lambda line: print(line, file=sys.stderr, flush=True))
    rows = summarize(
        [
            (o.benchmark.name, o.tasks, o.results, "; ".join(t for t in (o.state, o.reason, o.benchmark.note) if t))
            for o in outcomes
        ]
    )
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    print(json.dumps({"rows": rows, "failed": [o.benchmark.name for o in failed]}) if args.json else describe(rows))
    for outcome in failed:
        print(f"tam eval: {outcome.benchmark.name} failed: {outcome.reason}", file=sys.stderr)
    return 1 if failed else 0


def run_ablations(args: argparse.Namespace) -> int:
    """Print the table."""
    from tam_plugin.eval.ablations.table import describe, table

    video = args.video or str(Path(tam_plugin.__file__).with_name("assets") / "sample.mp4")
    rows = table(video, args.rows or None, args.seed)
    print(json.dumps({"seed": args.seed, "video": video, "rows": rows}) if args.json else describe(rows))
    return 0
