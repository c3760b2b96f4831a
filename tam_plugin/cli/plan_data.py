"""``tam plan-data``: budgets of a whole training set before training, and whether training could use its rows.

Exit codes beyond the common ones: 3 if more rows cannot be used than training allows.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.plans import bad_rows
from tam_plugin.plans.bad_rows import DEFAULT_MAX_SHARE, MIN_ALLOWED, check_max_share, listed_rows

SHOWN = 5
"""Bad rows that are named on stderr; the file lists all of them."""
TOO_MANY_BAD = 3
"""Exit code: training would stop."""


def add_parser(subparsers) -> None:
    """Register the command."""
    text = "plan every sample of a training set before training, and name the rows that training cannot use"
    parser = subparsers.add_parser(
        "plan-data",
        help=text,
        description=f"{text}. --tam_plans DIR then looks the plans up; --tam_skip DIR/bad_rows.jsonl leaves those rows "
        "out. Exit code 3: more rows cannot be used than training allows.",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help="LLaVA-format JSON or JSON lines, a pattern like part_{1,2}.json, or the host's YAML list; every row is "
        "planned whatever its sampling_strategy, so that any draw finds its plans",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the plans; a killed run resumes there")
    parser.add_argument(
        "--video-folder",
        metavar="DIR",
        help="open each video, for its length and to see whether it can be read (default: no video is opened; lengths "
        "are the rows' duration_s or duration, where they have it)",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=DEFAULT_MAX_SHARE,
        metavar="SHARE",
        help="share of rows that may be unusable, as training's --tam_max_bad_samples "
        f"({DEFAULT_MAX_SHARE}, and at least {MIN_ALLOWED} rows; 0 allows none)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="plan shard I of N, for a job array; rerun the command without --shard to join the finished shards",
    )
    parser.add_argument("--join", action="store_true", help="only join shards; fail if there are none")
    parser.add_argument(
        "--policy", metavar="FILE", help="budget policy YAML (default: the model's, or the shipped one)"
    )
    parser.add_argument(
        "--inductor", metavar="PATH", help="Inductor checkpoint (default: the model's, or the embedded one)"
    )
    parser.add_argument(
        "--model",
        metavar="PATH_OR_NAME",
        help="checkpoint folder, config.json or hub name that tells policy, Inductor and token layout",
    )
    parser.add_argument("--newline-position", metavar="P", help="the training script's mm_newline_position")
    parser.add_argument("--model-max-length", type=int, metavar="N", help="the training script's model_max_length")
    parser.add_argument("--grid", type=int, metavar="N", help="patches per side of a frame (default: the policy's)")
    parser.add_argument("--pool-mode", metavar="MODE", help="how frames are pooled (default: the policy's)")
    parser.add_argument(
        "--strides",
        nargs="+",
        type=int,
        metavar="S",
        help="strides that the model has projectors for, as --tam_strides has them (default: the model's, or any)",
    )
    parser.add_argument(
        "--workers", type=int, default=min(8, os.cpu_count() or 1), metavar="N", help="processes that open videos"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=16,
        metavar="N",
        help="questions per forward pass (default: 16); OMP_NUM_THREADS passes run side by side",
    )
    parser.add_argument("--json", action="store_true", help="print plans.json instead of the report")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Plan the rows, print the report, and return whether training could use them as the exit code."""
    from tam_plugin.budget import read_policy
    from tam_plugin.budget.stored import stored_policy
    from tam_plugin.inductor.stored import stored_inductor
    from tam_plugin.patches.llava_next.data.sampling import FRAME_FOLDER_FPS
    from tam_plugin.plans.journal import Shard
    from tam_plugin.plans.making import make_plans
    from tam_plugin.plans.request import Request
    from tam_plugin.plans.summary import as_markdown

    if args.join and args.shard is not None:
        raise ConfigError("--join and --shard exclude each other: shards are joined when all are done")
    check_max_share(args.max_bad, "--max-bad")
    _check_layout(args)
    model = _of_model(args.model) if args.model is not None else {}
    names = ("newline_position", "grid", "pool_mode", "strides", "reducer")
    layout: dict[str, Any] = {name: model[name] for name in names if name in model}
    layout |= {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if "strides" in layout:
        layout["strides"] = tuple(sorted({*layout["strides"]}))
    limits = [limit for limit in (args.model_max_length, model.get("max_tokens")) if limit is not None]
    if not limits:
        raise ConfigError(
            "the context length of training is not known: give --model-max-length as the training script has it"
            + (f" ({args.model!r} has no tokenizer_model_max_length)" if args.model else ", or --model")
        )
    if "newline_position" not in layout:
        raise ConfigError("give --newline-position as the training script has it (grid, frame, …), or --model")
    policy = stored_policy(model.get("policy")) if args.policy is None else read_policy(args.policy)
    stored = model.get("inductor") if args.inductor is None else None
    content = make_plans(
        Request(
            data=args.data,
            out=args.out,
            policy=policy,
            layout=policy.layout.replace(**layout, context_tokens=min(limits)),
            inductor=stored_inductor(stored, args.model) if args.inductor is None else args.inductor,
            video_folder=args.video_folder,
            image_fps=FRAME_FOLDER_FPS,
            workers=args.workers,
            batch_size=args.batch_size,
            shard=Shard.parse(args.shard) if args.shard is not None else None,
            join=args.join,
        ),
        max_bad=args.max_bad,
    )
    print(json.dumps(content) if args.json else as_markdown(content["counts"]), end="\n" if args.json else "")
    if args.video_folder is None:
        _say("note: no video was opened: give --video-folder to find those that cannot be read")
    if "shard" in content:
        _say(f"note: shard {content['shard']} is done; the same command without --shard joins the shards when all are")
        return 0
    return _verdict(content["counts"], args)


def _verdict(counts: dict[str, Any], args: argparse.Namespace) -> int:
    """Name bad rows on stderr; returns the exit code."""
    bad, total, path = counts["bad_rows"], counts["rows"], Path(args.out) / bad_rows.FILE_NAME
    if not bad["all"]:
        return 0
    stops = bad_rows.too_many(bad["all"], total, args.max_bad)
    rule = bad_rows.describe_rule(args.max_bad)
    _say(f"training cannot use {bad['all']} of {total} rows; --max-bad {rule}. {str(path)!r} lists all; the first:")
    for row in itertools.islice(listed_rows(path), SHOWN):
        _say(f"{row['where']}: {row['name']}: {row['reason']}")
    if bad["not_json"]:
        _say(f"{bad['not_json']} rows are not JSON: the host's loader fails at them, so they have to be corrected")
    advice = f"correct them and run this command again, or leave them out of training with --tam_skip {path}"
    _say(f"{'training would stop: ' if stops else ''}{advice}")
    return TOO_MANY_BAD if stops or bad["not_json"] else 0


def _check_layout(args: argparse.Namespace) -> None:
    """Refuse a size of the token layout that no model has, by its option."""
    from tam_plugin.bounds import MAX_GRID, MAX_STRIDE, MAX_TOKENS, is_whole

    for option, value, most in (
        ("--model-max-length", args.model_max_length, MAX_TOKENS),
        ("--grid", args.grid, MAX_GRID),
        *(("--strides", stride, MAX_STRIDE) for stride in args.strides or ()),
    ):
        if value is not None and not is_whole(value, 1, most):
            raise ConfigError(f"{option} {value}: expected a whole number from 1 to {most}")


def _say(text: str) -> None:
    print(f"tam plan-data: {' '.join(text.split())}", file=sys.stderr)


def _of_model(name_or_path: str) -> dict[str, Any]:
    """Policy, Inductor and token layout that a model's configuration tells; nothing of a model of no host's.

    Training can start from a plain language model, whose video tokens the training script alone decides.
    """
    from tam_plugin.bounds import check_sizes, reading_config
    from tam_plugin.config import TamConfig
    from tam_plugin.files import read_json
    from tam_plugin.hub import CONFIG_FILES, model_folder
    from tam_plugin.patches.hosts import find_host

    path = Path(name_or_path)
    if not path.is_file():
        path = model_folder(name_or_path, CONFIG_FILES, option="--model") / "config.json"
    try:
        values = read_json(path, what="--model", error=ConfigError)
    except FileNotFoundError as error:
        raise ConfigError(f"--model: there is no file {str(path)!r}") from error
    check_sizes(values, str(path))
    host = find_host(values)
    if host is None:
        return {}
    with reading_config(f"--model {str(path)!r}"):
        layout = host.token_layout(values, f"--model {str(path)!r}")
    found: dict[str, Any] = {**dataclasses.asdict(layout), "max_tokens": layout.context_tokens}
    if layout.strides is None:
        del found["strides"]
    if values.get("tam") is None:
        return found
    tam = TamConfig.from_dict(values["tam"])
    return {**found, "policy": tam.policy, "inductor": tam.inductor}
