"""``tam plan``: the budget and frames of a question about a video, before any language model runs."""

from __future__ import annotations

import argparse
import json

from tam_plugin.cli import common
from tam_plugin.errors import one_line

SHEET_SIZE = 640
"""Pixels per side, at most: no model looks at these frames."""


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("plan", help="task type, visual budget and frames of a question about a video")
    common.add_question_arguments(parser)
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="write the sampled frames to one image")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decide, sample the frames, and print the decision."""
    from tam_plugin.budget import read_policy
    from tam_plugin.deciding import Decider
    from tam_plugin.video import contact_sheet

    common.check_outputs(args)
    decider = Decider(read_policy(args.policy), inductor=args.inductor)
    with common.question(args, size=SHEET_SIZE) as question:
        decision, video = question.decided_by(decider)
    values = common.report(decision, video)
    if args.contact_sheet is not None:
        contact_sheet(video, args.contact_sheet)
    print(json.dumps(values) if args.json else common.describe(values))
    if args.contact_sheet and not args.json:
        print(f"sheet       {one_line(args.contact_sheet)}")
    return 0
