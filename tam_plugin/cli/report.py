"""``tam report``: tables and figures of evaluations, from the files that they left."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Make report.md with its figures, and a report.html that holds them, from the results folder of an evaluation: "
    "lmms-eval's results and samples (--log_samples), and the model's own logs in that folder (log=FILE.jsonl and "
    "routing=FILE.jsonl in --model_args)."
)


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("report", help="tables and figures of evaluations", description=DESCRIPTION)
    parser.add_argument("results", metavar="RESULTS_DIR", help="results folder of an evaluation with the TAM policy")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the report: new, or an earlier report's")
    parser.add_argument("--baseline", metavar="DIR", help="results of the same tasks with policy=fixed:64:2")
    parser.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a further point of accuracy over FLOPs",
    )
    parser.add_argument(
        "--training", action="append", default=[], metavar="NAME=DIR", help="a training run whose loss curve to draw"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--model", metavar="PATH", help="checkpoint or config.json to count FLOPs of (default: each run's own)"
    )
    which.add_argument("--preset", metavar="NAME", help="published sizes to count FLOPs for, as in tam flops")
    parser.add_argument("--note", metavar="TEXT", help="a line to put at the top of the report")
    parser.add_argument("--inductor-report", metavar="LINK", help="link to the Inductor's own report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Make the report and print where it is."""
    from tam_plugin.eval.report import Request, make_report

    request = Request(
        results=args.results,
        out=args.out,
        baseline=args.baseline,
        runs=[_named(pair, "--run") for pair in args.runs],
        training=[_named(pair, "--training") for pair in args.training],
        model=args.model,
        preset=args.preset,
        note=args.note,
        inductor_report=args.inductor_report,
    )
    print(make_report(request))
    return 0


def _named(pair: str, option: str) -> tuple[str, str]:
    from tam_plugin.errors import InputError

    name, mark, folder = pair.partition("=")
    if not (mark and name.strip() and folder):
        raise InputError(f"{option} {pair!r}: expected NAME=DIR")
    return name, folder
