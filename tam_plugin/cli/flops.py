"""``tam flops``: what a model costs, worked out from its sizes, beside the paper's figures."""

from __future__ import annotations

import argparse
import json

DESCRIPTION = (
    "Exact floating-point operations and parameters of a TAM model and of its dense baseline, by part, budget and task "
    "type, beside the figures of the paper's Tab. 2b, 2c and 13. Nothing is run and no weight is read."
)


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("flops", help="operations and parameters, from sizes alone", description=DESCRIPTION)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="PATH", help="checkpoint folder, or its config.json")
    which.add_argument(
        "--preset", default="llava-video-7b", metavar="NAME", help="llava-video-7b (default) or llava-video-72b"
    )
    parser.add_argument("--config", metavar="TAM.yaml", help="fields of TamConfig to give a dense model")
    parser.add_argument(
        "--duration", type=float, nargs="+", metavar="S", help="lengths of the video (default: 15 60 180 600)"
    )
    parser.add_argument(
        "--text-tokens",
        type=int,
        default=128,
        metavar="N",
        help="length of the prompt without the video (default: 128)",
    )
    parser.add_argument("--new-tokens", type=int, default=1, metavar="N", help="length of the answer (default: 1)")
    parser.add_argument(
        "--attention",
        default="full",
        choices=("full", "causal"),
        help="count scores of the whole square, or of its causal half",
    )
    parser.add_argument(
        "--logits",
        default="last",
        choices=("last", "all"),
        help="count the output layer for the prompt's last token, or for all",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Count the operations and print the report."""
    from tam_plugin.config import TamConfig
    from tam_plugin.eval.flops import Conventions, describe, from_path, from_preset, report
    from tam_plugin.eval.flops.report import DURATIONS_S

    tam = TamConfig.from_yaml(args.config) if args.config is not None else None
    subject = from_path(args.model, tam) if args.model is not None else from_preset(args.preset, tam)
    conventions = Conventions(
        text_tokens=args.text_tokens, new_tokens=args.new_tokens, attention=args.attention, logits=args.logits
    )
    values = report(subject, args.duration or DURATIONS_S, conventions)
    print(json.dumps(values) if args.json else describe(values))
    return 0
