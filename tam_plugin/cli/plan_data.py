"""``tam plan-data``: budgets of a whole training set before training, so that its workers only look them up."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from tam_plugin.errors import ConfigError


def add_parser(subparsers) -> None:
    """Register the command."""
    text = "plan every sample of a training set before training (--tam_plans DIR then looks the plans up)"
    parser = subparsers.add_parser("plan-data", help=text, description=text)
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="LLaVA-format JSON or JSON lines, a pattern like part_{1,2}.json, or the host's YAML list; every row is "
        "planned whatever its sampling_strategy, so that any draw finds its plans",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the plans; a killed run goes on there")
    parser.add_argument(
        "--video-folder",
        metavar="DIR",
        help="open each video for its length (default: the rows' duration_s or duration, where they have it)",
    )
    parser.add_argument(
        "--policy", metavar="FILE", help="budget policy YAML (default: the model's, or the one shipped)"
    )
    parser.add_argument(
        "--inductor", metavar="PATH", help="Inductor checkpoint (default: the model's, or the embedded)"
    )
    parser.add_argument(
        "--model", metavar="PATH", help="config.json or checkpoint that tells policy, Inductor and token layout"
    )
    parser.add_argument("--newline-position", metavar="P", help="the training script's mm_newline_position")
    parser.add_argument("--model-max-length", type=int, metavar="N", help="the training script's model_max_length")
    parser.add_argument("--grid", type=int, metavar="N", help="patches a side of a frame (default: the policy's)")
    parser.add_argument("--pool-mode", metavar="MODE", help="how frames are pooled (default: the policy's)")
    parser.add_argument(
        "--workers", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="processes that open videos"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="questions a forward pass (default: 16); OMP_NUM_THREADS passes run side by side",
    )
    parser.add_argument("--json", action="store_true", help="print plans.json instead of the report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan, report."""
    from tam_plugin.budget import BudgetPolicy
    from tam_plugin.budget.stored import stored_policy
    from tam_plugin.inductor.stored import stored_inductor
    from tam_plugin.patches.llava_next.sampling import FRAME_FOLDER_FPS
    from tam_plugin.training.layout import Layout
    from tam_plugin.training.plans import Request, make_plans
    from tam_plugin.training.report import as_markdown

    model = _of_model(args.model) if args.model is not None else {}
    names = {"newline_position", "grid", "pool_mode"}
    layout: dict[str, Any] = {name: model.get(name) for name in names}
    layout |= {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    limits = [limit for limit in (args.model_max_length, model.get("max_tokens")) if limit is not None]
    if not limits:
        raise ConfigError(
            "the context that training keeps is not known: give --model-max-length as the training script has it"
            + (f" ({args.model!r} has no tokenizer_model_max_length)" if args.model else ", or --model")
        )
    if layout["newline_position"] is None:
        raise ConfigError("give --newline-position as the training script has it (grid, frame, …), or --model")
    policy = stored_policy(model.get("policy")) if args.policy is None else None
    stored = model.get("inductor") if args.inductor is None else None
    content = make_plans(
        Request(
            data=args.data,
            out=args.out,
            policy=policy or BudgetPolicy.from_yaml(args.policy),
            layout=Layout(**layout, max_tokens=min(limits)),
            inductor=args.inductor or stored_inductor(stored, args.model),
            video_folder=args.video_folder,
            image_fps=FRAME_FOLDER_FPS,
            workers=args.workers,
            batch_size=args.batch_size,
        )
    )
    print(json.dumps(content) if args.json else as_markdown(content["counts"]), end="\n" if args.json else "")
    return 0


def _of_model(path: str) -> dict[str, Any]:
    """Policy, Inductor and token layout that a model's configuration tells."""
    from tam_plugin.bounds import MAX_TOKENS, check_sizes, is_whole, reading_config
    from tam_plugin.config import TamConfig
    from tam_plugin.files import read_json
    from tam_plugin.patches.llava_next.model_config import newline_of

    file = os.path.join(path, "config.json") if os.path.isdir(path) else path
    try:
        values = read_json(file, what="--model", error=ConfigError)
    except FileNotFoundError as error:
        raise ConfigError(f"--model: there is no file {file!r}") from error
    check_sizes(values, file)
    longest = values.get("tokenizer_model_max_length")
    if longest is not None and not is_whole(longest, 1, MAX_TOKENS):
        raise ConfigError(f"--model {file!r}: tokenizer_model_max_length = {longest!r}: expected a whole number")
    found: dict[str, Any] = {"max_tokens": longest}
    if values.get("mm_newline_position") or values.get("mm_patch_merge_type"):
        found["newline_position"] = newline_of(values, f"--model {file!r}")
    tam = values.get("tam")
    if tam is None:
        return found
    config = TamConfig.from_dict(tam)
    encoder = config.vision_encoder or {}
    if "image_size" in encoder and "patch_size" in encoder:
        with reading_config(file):
            found["grid"] = int(encoder["image_size"]) // int(encoder["patch_size"])
    return found | {"policy": config.policy, "inductor": config.inductor, "pool_mode": config.projector.pool_mode}
