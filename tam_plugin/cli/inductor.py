"""``tam inductor``: train, judge and extend the classifier of task types."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from pathlib import Path

from tam_plugin.cli import inductor_base
from tam_plugin.errors import InputError


def add_parser(subparsers) -> None:
    """Register the command and its subcommands."""
    parser = subparsers.add_parser("inductor", help="train, evaluate and extend the classifier of task types")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=type(parser))
    inductor_base.add_parser(actions)
    _add_train(actions)
    _add_eval(actions)
    _add_extend(actions)
    _add_average(actions)


def _add_average(actions) -> None:
    text = "Average the weights of compact Inductors of one base, which carries over to new phrasing better than one."
    parser = actions.add_parser("average", help="average compact Inductors", description=text)
    parser.add_argument("inductors", nargs="+", metavar="DIR", help="folders that train --embedded wrote")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.set_defaults(run=run_average)


def run_average(args: argparse.Namespace) -> int:
    """Average the Inductors."""
    from tam_plugin.inductor.averaging import average

    average(args.inductors, args.out)
    print(args.out)
    return 0


def _add_train(actions) -> None:
    text = (
        "Train an Inductor on a Hugging Face base (stage 1). Rerun the same command to resume a killed run. On "
        "several processes: accelerate launch --multi_gpu --num_processes N -m tam_plugin.cli.main inductor train ..., "
        "with --cpu at its end for several on CPUs."
    )
    parser = actions.add_parser("train", help="train an Inductor on a Hugging Face base", description=text)
    parser.add_argument("--data", nargs="+", default=[], metavar="FILE", help="labelled questions, JSON lines")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint to write")
    parser.add_argument("--base", metavar="NAME_OR_PATH", help="Hugging Face model (default: SmolLM2-135M-Instruct)")
    parser.add_argument(
        "--embedded",
        action="store_true",
        help="train the compact classifier of this package: --base is a BERT encoder (default: all-MiniLM-L6-v2), "
        "and the package's corpus is used in addition to --data",
    )
    parser.add_argument(
        "--grammar-per-label",
        type=int,
        default=700,
        metavar="N",
        help="with --embedded: grammar rows per label (default: 700)",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        default=[0, 1],
        metavar="N",
        help="with --embedded: seeds of the runs to average (default: 0 1)",
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="with --embedded: languages of the corpus to train on (default: all; English without --base)",
    )
    parser.add_argument(
        "--no-question",
        type=int,
        default=600,
        metavar="N",
        help="with --embedded: texts that ask nothing (default: 600)",
    )
    parser.add_argument("--layers", type=int, metavar="N", help="with --embedded: layers of the base to keep")
    parser.add_argument(
        "--teacher",
        metavar="DIR",
        help="with --embedded: a compact Inductor whose prediction makes up half of every target",
    )
    parser.add_argument(
        "--pilot",
        nargs="+",
        default=[],
        metavar="SOURCE",
        help="with --embedded: fit the temperature on these sources, by a first run of one epoch without them",
    )
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SOURCE", help="with --embedded: sources not to train on"
    )
    parser.add_argument(
        "--valid", nargs="+", default=[], metavar="FILE", help="held-out rows (default: part of --data)"
    )
    parser.add_argument(
        "--held-out", type=float, default=0.1, metavar="SHARE", help="share of --data held out (default: 0.1)"
    )
    parser.add_argument("--no-options", dest="use_options", action="store_false", help="hide the answer options")
    parser.add_argument("--no-duration", dest="use_duration", action="store_false", help="hide the length class")
    parser.add_argument(
        "--class-weights",
        choices=("balanced", "sqrt", "none"),
        default="balanced",
        help="weight of a label of n rows: 1/n, 1/sqrt(n) or 1, scaled to mean 1 over the rows (default: balanced)",
    )
    parser.add_argument("--report-to", choices=("none", "wandb", "tensorboard"), default="none", help="default: none")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run left in --out")
    numbers = {
        "epochs": (int, 3, "passes over the data at most"),
        "batch_size": (int, 32, "rows per process and step"),
        "gradient_accumulation": (int, 1, "steps whose gradients are accumulated"),
        "learning_rate": (float, 5e-5, "peak learning rate; linear warm-up, then cosine decay"),
        "weight_decay": (float, 0.01, "weight decay"),
        "warmup": (float, 0.05, "share of the steps used for warm-up"),
        "label_smoothing": (float, 0.05, "probability mass spread over all labels"),
        "label2_weight": (float, 0.3, "probability mass of a second valid label"),
        "patience": (int, 3, "evaluations without progress before training stops; 0 never stops early"),
        "eval_steps": (int, 0, "steps between checkpoints; 0 for one per epoch"),
        "max_tokens": (int, 256, "longest input"),
        "seed": (int, 0, "seed of head, order and split"),
    }
    _add_numbers(parser, numbers)
    parser.set_defaults(run=run_train)


def _add_eval(actions) -> None:
    parser = actions.add_parser("eval", help="figures of an Inductor on labelled questions")
    parser.add_argument("files", nargs="+", metavar="FILE", help="labelled questions, JSON lines")
    parser.add_argument("--inductor", metavar="PATH", help="Inductor checkpoint (default: the embedded one)")
    parser.add_argument("--out", metavar="DIR", help="folder for the figures and tables")
    parser.add_argument(
        "--compare", nargs="+", default=[], metavar="PATH", help="further Inductors to compare side by side"
    )
    parser.add_argument(
        "--paraphrases", nargs="+", default=[], metavar="FILE", help="the same questions paraphrased, JSON lines"
    )
    parser.add_argument("--policy", metavar="FILE", help="policy that sets the budgets (default: the shipped one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run_eval)


def _add_extend(actions) -> None:
    text = (
        "Teach an Inductor a further task type by LoRA, from some hundred samples and a definition in YAML: label, "
        "description, and policy, which is {group: NAME} or a whole rule as a group of the budget policy has it."
    )
    parser = actions.add_parser("extend", help="teach an Inductor a further task type", description=text)
    parser.add_argument("--base", required=True, metavar="PATH", help="Inductor checkpoint, or 'embedded'")
    parser.add_argument("--definition", required=True, metavar="FILE.yaml", help="label, description and policy")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="samples of the new type, JSON lines")
    parser.add_argument("--replay", nargs="+", default=[], metavar="FILE", help="rows of the old types, JSON lines")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the checkpoint to write")
    parser.add_argument("--eval", nargs="+", default=[], metavar="FILE", help="rows to compare before and after on")
    parser.add_argument("--policy", metavar="FILE", help="policy that knows the group (default: the shipped one)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace a finished Inductor in --out")
    numbers = {
        "rank": (int, 16, "rank of the updates"),
        "alpha": (int, 32, "updates are scaled by alpha / rank"),
        "epochs": (int, 2, "passes over samples and replay"),
        "batch_size": (int, 32, "rows per step"),
        "learning_rate": (float, 5e-4, "peak learning rate of the updates"),
        "head_learning_rate": (float, 1e-3, "peak learning rate of the head"),
        "keep": (float, 0.5, "share of the base's prediction in the target of an old row"),
        "max_tokens": (int, 128, "longest training input"),
        "held_out": (float, 0.1, "share held out to fit the temperature"),
        "seed": (int, 0, "seed of updates, order and split"),
    }
    _add_numbers(parser, numbers)
    parser.set_defaults(run=run_extend)


def run_train(args: argparse.Namespace) -> int:
    """Train and print a line of figures (the first process of several alone)."""
    if args.embedded:
        return _train_embedded(args)
    if not args.data:
        raise InputError("--data is missing: expected files of labelled questions, JSON lines (or --embedded)")
    from tam_plugin.inductor.finetuning.bases import DEFAULT_BASE
    from tam_plugin.inductor.finetuning.stage1 import Stage1Options, train

    _check_numbers(args, ("patience", "eval_steps", "weight_decay", "seed", *_SHARES[1:]))
    _quiet_bars()
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Stage1Options)}
    given |= {"data": tuple(args.data), "valid": tuple(args.valid)}
    given["base"] = DEFAULT_BASE if args.base is None else args.base
    with contextlib.redirect_stdout(sys.stderr):  # libraries' talk: standard output is for the figures
        figures = train(Stage1Options(**given), args.out, overwrite=args.overwrite)
    if figures is not None:
        print(json.dumps(figures))
    return 0


def _train_embedded(args: argparse.Namespace) -> int:
    from tam_plugin.inductor.fitting import FitOptions
    from tam_plugin.inductor.split import TrainingOptions
    from tam_plugin.inductor.training import train

    _check_numbers(args, ("patience", "eval_steps", "weight_decay", "seed", *_SHARES[1:]))
    if not args.overwrite and (Path(args.out) / "config.json").exists():
        raise InputError(f"--out {args.out!r} holds a checkpoint; name another folder, or give --overwrite")
    read = ("epochs", "batch_size", "learning_rate", "label_smoothing", "label2_weight", "weight_decay")
    options = TrainingOptions(
        base=None if args.base is None else Path(args.base),
        languages=_languages(args),
        layers=args.layers,
        teacher=None if args.teacher is None else Path(args.teacher),
        pilot=tuple(args.pilot),
        no_question=args.no_question,
        queries=tuple(Path(path) for path in args.data),
        grammar_per_label=args.grammar_per_label,
        leave_out=tuple(args.leave_out),
        seeds=tuple(args.seeds),
        held_out=args.held_out,
        fit=FitOptions(**{name: getattr(args, name) for name in read}),
    )
    print(json.dumps(train(options, Path(args.out))))
    return 0


def _languages(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Languages of the corpus to train on: English alone for the English base."""
    if args.languages is not None:
        return tuple(args.languages)
    return ("en",) if args.base is None else None


def run_eval(args: argparse.Namespace) -> int:
    """Evaluate an Inductor."""
    from functools import partial

    from tam_plugin.budget import BudgetPolicy
    from tam_plugin.budget.cost import bought
    from tam_plugin.inductor import evaluation_report as report

    cost = partial(bought, policy=BudgetPolicy.from_yaml(args.policy))
    return report.run(args.inductor, args.files, args.out, args.compare, args.paraphrases, args.json, cost)


def run_extend(args: argparse.Namespace) -> int:
    """Teach a task type; print a line of figures, and the table that ``--eval`` asks for."""
    from tam_plugin.budget import BudgetPolicy
    from tam_plugin.inductor.finetuning.definition import read_definition
    from tam_plugin.inductor.finetuning.extend import extend
    from tam_plugin.inductor.finetuning.lora import LoraOptions

    _check_numbers(args, ("seed",))
    extension = read_definition(args.definition)
    BudgetPolicy.from_yaml(args.policy).extension_rule(extension)
    _quiet_bars()
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(LoraOptions) if hasattr(args, f.name)}
    with contextlib.redirect_stdout(sys.stderr):
        figures, table = extend(
            args.base,
            extension,
            args.data,
            Path(args.out),
            replay=args.replay,
            evaluation=args.eval,
            options=LoraOptions(**given),
            overwrite=args.overwrite,
        )
    print(json.dumps(figures))
    if table is not None:
        print(f"\n{table}")
    return 0


def _add_numbers(parser: argparse.ArgumentParser, numbers: dict[str, tuple[type, float, str]]) -> None:
    for name, (kind, default, text) in numbers.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, default=default, metavar="N", help=f"{text} (default: {default})")
    parser.set_defaults(numbers=tuple(numbers))


_SHARES = ("held_out", "warmup", "label_smoothing", "label2_weight")


def _check_numbers(args: argparse.Namespace, may_be_zero: tuple[str, ...]) -> None:
    """Refuse numbers that no run can have.

    Raises:
        InputError: the message names the option.
    """
    for name in (*args.numbers, "held_out"):
        value = getattr(args, name)
        high = 1.0 if name in _SHARES else 1e9
        low_ok = value >= 0 if name in may_be_zero else value > 0
        if not (low_ok and value < high):
            low = "from 0" if name in may_be_zero else "over 0"
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a number {low}, under {high:g}")


def _quiet_bars() -> None:
    """Transformers' own bars only where somebody watches."""
    if not sys.stderr.isatty():
        from transformers.utils import logging

        logging.disable_progress_bar()
