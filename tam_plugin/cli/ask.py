"""``tam ask``: the whole way, from a video file and a question to the model's answer."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from tam_plugin.cli import common
from tam_plugin.cli.streams import say
from tam_plugin.errors import InputError, one_line, printable

if TYPE_CHECKING:
    from tam_plugin.deciding import Decision
    from tam_plugin.page import Case
    from tam_plugin.patches.hosts.model import Answer, Assistant
    from tam_plugin.video import SampledVideo
    from tam_plugin.vision import RoutingCollector


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("ask", help="answer a question about a video with a TAM model")
    common.add_question_arguments(parser)
    parser.add_argument(
        "--model",
        metavar="PATH_OR_NAME",
        help="a TAM or llava-hf LLaVA-OneVision checkpoint (default: a demonstration model of drawn clips)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=128, metavar="N", help="longest answer, in tokens (default: 128)"
    )
    parser.add_argument("--contact-sheet", metavar="FILE.png", help="write the sampled frames to one image")
    parser.add_argument("--report", metavar="FILE.html", help="write decision, frames, experts and answer as a page")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decide, sample and encode the frames, answer, and print the result."""
    from tam_plugin.budget import read_policy
    from tam_plugin.page import write_case
    from tam_plugin.patches.hosts import load_assistant
    from tam_plugin.video import contact_sheet
    from tam_plugin.video.scaling import NATIVE_SIZE_LIMIT
    from tam_plugin.vision import collect_routing

    if args.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens {args.max_new_tokens}: expected a whole number >= 1")
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
    common.check_outputs(args)
    own_policy = None if args.policy is None else read_policy(args.policy)
    with common.question(args, size=NATIVE_SIZE_LIMIT) as question:
        assistant = load_assistant(args.model, device=args.device)
        decider = assistant.decider(own_policy, args.inductor)
        decision, video = question.decided_by(decider, output_tokens=args.max_new_tokens)
    notice = assistant.notice if args.model is not None else _of_demonstration(video)
    # The demonstration model's output for an unknown video would look like an answer, so only the decision is shown.
    answered = args.model is not None or notice is None
    with collect_routing(assistant.vision_tower) as routing:
        answer = assistant.answer(
            video,
            question.query,
            decision.budget,
            options=args.options,
            max_new_tokens=args.max_new_tokens if answered else 1,
        )
    text = answer.text if answered else None
    # Nothing is written or said before the answer is there.
    if args.contact_sheet is not None:
        contact_sheet(video, args.contact_sheet)
    if args.report is not None:
        write_case(_case(args, question.query, assistant, decision, video, answer, text, routing, notice), args.report)
    if notice:
        say(f"tam: note: {notice}")
    values = {**common.report(decision, video), "answer": text, "notice": notice}
    if args.json:
        print(json.dumps(values))
        return 0
    print(common.describe(values))
    if args.contact_sheet is not None:
        print(f"sheet       {one_line(args.contact_sheet)}")
    if args.report is not None:
        print(f"report      {one_line(args.report)}")
    print(f"answer      {_shown(text)}")
    return 0


def _shown(answer: str | None) -> str:
    """The answer as text, its further lines below the first; or why there is none."""
    if answer is None:
        return "none: the demonstration model does not know this video; pass --model"
    if not answer.strip():
        return "(empty: the model ended at once)"
    return printable(answer).replace("\n", f"\n{' ' * 12}")


def _of_demonstration(video: SampledVideo) -> str | None:
    """What a user must know where no model was given: whether the video is of the world that the model knows."""
    from tam_plugin.eval.taskworld.recognition import is_taskworld
    from tam_plugin.patches.onevision.assistant import DEMO_NOTICE

    return None if is_taskworld(video.frames) else DEMO_NOTICE


def _case(
    args: argparse.Namespace,
    query: str,
    assistant: Assistant,
    decision: Decision,
    video: SampledVideo,
    answer: Answer,
    text: str | None,
    routing: RoutingCollector,
    notice: str | None,
) -> Case:
    """What the page of this question shows."""
    from tam_plugin.budget import FixedPolicy
    from tam_plugin.page import Case
    from tam_plugin.vision import RoutingStatistics

    distribution = decision.distribution
    assert distribution is not None  # there was a question
    statistics = RoutingStatistics()
    statistics.update(routing, [len(video)], [distribution.decided_task.label])
    experts = statistics.to_dict().get("all", {"load": None, "mean_weight": None})
    layout = decision.policy.layout
    return Case(
        query=query,
        options=args.options,
        distribution=distribution,
        budget=decision.budget,
        baseline=FixedPolicy(layout=layout).budget(None, decision.duration_s, video_frames=video.info.num_frames),
        context_tokens=decision.policy.visual_tokens,
        video=video,
        expert_load=experts["load"],
        expert_weight=experts["mean_weight"],
        top_k=assistant.tam_config.moe.top_k,
        prompt=answer.prompt,
        prompt_tokens=answer.prompt_tokens,
        answer=text,
        model=args.model,
        notice=notice,
        untrained=assistant.notice is not None,
    )
