"""``tam ask``: the whole way, from a video file and a question to the model's answer."""

from __future__ import annotations

import argparse
import json
import sys

from tam_plugin.cli import common
from tam_plugin.errors import InputError


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("ask", help="answer a question about a video with a TAM model")
    common.add_question_arguments(parser)
    parser.add_argument(
        "--model",
        metavar="PATH_OR_NAME",
        help="a TAM or llava-hf LLaVA-OneVision checkpoint (default: a demonstration model with untrained weights)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--max-new-tokens", type=int, default=128, metavar="N", help="length of the answer, at most")
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="write the sampled frames as one picture")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decide, sample, encode, answer, print."""
    from tam_plugin.budget import BudgetPolicy
    from tam_plugin.patches.onevision import VideoAssistant
    from tam_plugin.video import contact_sheet, sample_frames

    if args.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens {args.max_new_tokens}: expected a whole number >= 1")
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
    own_policy = BudgetPolicy.from_yaml(args.policy) if args.policy else None
    question = common.read_question(args)
    assistant = VideoAssistant.from_pretrained(args.model, **({"device": args.device} if args.model else {}))
    args.inductor = args.inductor or assistant.config.tam_config.inductor
    decision = common.decide(args, question, assistant.config.host_policy(own_policy))
    video = sample_frames(args.video, decision.budget, backend=args.backend, snap_to_keyframes=args.snap_to_keyframes)
    if args.contact_sheet:
        contact_sheet(video, args.contact_sheet)
    if assistant.notice:
        print(f"tam: note: {assistant.notice}", file=sys.stderr)
    answer = assistant.answer(
        video, question.query, decision.budget, options=args.options, max_new_tokens=args.max_new_tokens
    )
    values = {**common.report(decision, video), "answer": answer.text, "notice": assistant.notice}
    if args.json:
        print(json.dumps(values))
        return 0
    print(common.describe(values))
    if args.contact_sheet:
        print(f"sheet       {args.contact_sheet}")
    print(f"answer      {answer.text!r}")
    return 0
