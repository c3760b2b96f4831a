"""``tam recipe``: the paper's learning-rate rule, and what a training command would do before it is started."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json

from tam_plugin.errors import InputError


def add_parser(subparsers) -> None:
    """Register the command."""
    text = "the learning-rate rule, and what a training command would do"
    parser = subparsers.add_parser("recipe", help=text, description=text)
    commands = parser.add_subparsers(dest="recipe_command", required=True, metavar="COMMAND")

    rate = commands.add_parser("learning-rate", help="LR₀ · sqrt(BS / BS₀) (Eq. 3)")
    rate.add_argument("base", type=float, metavar="LR0", help="2.5e-5 (language model), 5e-6 (vision tower)")
    rate.add_argument("--batch-size", type=int, required=True, metavar="BS", help="samples × accumulation × GPUs")
    rate.add_argument("--base-batch-size", type=int, metavar="BS0", help="default: 32, the paper's 1 × 2 × 16")
    rate.set_defaults(run=run_rate)

    preview = commands.add_parser("preview", help="trainable parameters and memory per step; reads no weights")
    preview.add_argument("--gpus", type=int, default=1, metavar="N", help="data-parallel processes (default: 1)")
    preview.add_argument(
        "--gpu-memory", type=float, default=80.0, metavar="GB", help="memory of each GPU (default: 80)"
    )
    preview.add_argument("--json", action="store_true", help="print one JSON object")
    preview.add_argument("arguments", nargs="+", metavar="ARG", help="after --: the arguments of train_mem.py")
    preview.set_defaults(run=run_preview)

    curves = commands.add_parser("curves", help="loss curves of training runs as one PNG (Fig. 12a)")
    curves.add_argument("runs", nargs="+", metavar="NAME=DIR", help="a run's name and output folder")
    curves.add_argument("--out", required=True, metavar="FILE.png", help="the figure")
    curves.add_argument("--smoothing", type=float, default=0.6, metavar="W", help="smoothing weight (default: 0.6)")
    curves.set_defaults(run=run_curves)


def run_curves(args: argparse.Namespace) -> int:
    """Draw the figure."""
    from tam_plugin.training.curves import draw_curves

    runs = [tuple(run.partition("=")[::2]) for run in args.runs]
    if bad := [run for run, (name, folder) in zip(args.runs, runs, strict=True) if not (name and folder)]:
        raise InputError(f"{bad[0]!r}: expected NAME=DIR")
    draw_curves(runs, args.out, smoothing=args.smoothing)
    print(args.out)
    return 0


def run_rate(args: argparse.Namespace) -> int:
    """Print the rate."""
    from tam_plugin.training.recipe import BASE_BATCH_SIZE, scaled_learning_rate

    print(f"{scaled_learning_rate(args.base, args.batch_size, args.base_batch_size or BASE_BATCH_SIZE):.6g}")
    return 0


def run_preview(args: argparse.Namespace) -> int:
    """Print the tables."""
    from tam_plugin.patches import activation
    from tam_plugin.patches.hosts import host_named
    from tam_plugin.training.memory import GIGA, format_estimate
    from tam_plugin.training.parts import format_parts

    if args.gpus < 1:
        raise InputError(f"--gpus {args.gpus}: expected at least 1")
    host_named("llava").require()
    activation.start()
    from tam_plugin.patches.llava_next.command_line.preview import preview

    with contextlib.redirect_stdout(io.StringIO()):  # the host prints as it is imported
        found = preview(args.arguments, gpus=args.gpus)
    if args.json:
        print(json.dumps({"parts": [p._asdict() for p in found.parts], "memory": found.memory}))
        return 0
    step = dataclasses.asdict(found.step)
    print(format_parts(found.parts))
    print(
        f"\nestimate for {step['gpus']} GPUs, ZeRO-{step['zero_stage']}, {step['tokens']:,} tokens and "
        f"{step['frames']} frames per GPU (the longest sample)"
    )
    print(format_estimate(found.memory, gpu_bytes=args.gpu_memory * GIGA))
    return 0
