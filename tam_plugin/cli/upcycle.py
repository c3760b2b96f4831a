"""``tam upcycle``: a dense checkpoint becomes a TAM checkpoint (and back) on disk, without the model in memory."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import ConfigError, InputError

if TYPE_CHECKING:
    from tam_plugin.checkpoint import Source, TensorLayout
    from tam_plugin.config import TamConfig

DESCRIPTION = (
    "Make a TAM checkpoint of a dense LLaVA-NeXT or LlavaOnevision checkpoint, shard by shard. The result computes "
    "what the dense model computes. Rerun the same command to resume a killed run."
)


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "upcycle", help="convert a dense checkpoint to a TAM checkpoint, on disk", description=DESCRIPTION
    )
    parser.add_argument("source", metavar="SRC", help="checkpoint folder, or its name on the hub")
    parser.add_argument("target", metavar="DST", nargs="?", help="folder to write (not with --inspect)")
    parser.add_argument("--config", metavar="TAM.yaml", help="fields of TamConfig (default: its defaults)")
    parser.add_argument("--num-experts", type=int, metavar="N", help="experts per encoder layer (default: 4)")
    parser.add_argument("--top-k", type=int, metavar="K", help="experts per token (default: 2)")
    parser.add_argument("--strides", metavar="1,2,3,4", help="pooling strides, each with its projector")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the routers (default: 0)")
    transfer = parser.add_mutually_exclusive_group()
    transfer.add_argument("--link", dest="transfer", action="store_const", const="link", help="hard-link whole shards")
    transfer.add_argument(
        "--copy",
        dest="transfer",
        action="store_const",
        const="copy",
        help="copy them (default: link if both folders are on one file system)",
    )
    parser.add_argument("--overwrite", action="store_true", help="start again in a DST that holds something else")
    parser.add_argument("--dense", metavar="average|expert:N", help="convert back: TAM checkpoint to dense checkpoint")
    parser.add_argument(
        "--projector", metavar="stride:N|average", help="with --dense: the projector to keep (default: stride:2)"
    )
    parser.add_argument("--vision-tower", metavar="NAME", help="with --dense: LLaVA-NeXT's name of the dense tower")
    parser.add_argument("--inspect", action="store_true", help="print parameters and costs; write nothing")
    parser.add_argument(
        "--duration", type=float, default=60.0, metavar="S", help="with --inspect: length of the video (default: 60)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the checkpoint, convert it (or back), and print a summary."""
    from tam_plugin.checkpoint import open_source
    from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder

    _check_arguments(args)
    source = open_source(model_folder(args.source, TEXT_FILES, WEIGHTS, option="SRC", expected="a checkpoint folder"))
    try:
        layout = find_layout(source)
        print(_inspect(args, source, layout) if args.inspect else _convert(args, source, layout))
    finally:
        source.close()
    return 0


def find_layout(source: Source) -> TensorLayout:
    """The layout of a checkpoint, by the host that its config.json names.

    Raises:
        ConfigError: no host owns it, or its tower is no SigLIP.
    """
    from tam_plugin.patches.hosts import host_of

    where = str(source.folder)
    return host_of(source.config, where).tensor_layout(source.config, source.holder, where)


def _check_arguments(args: argparse.Namespace) -> None:
    if args.target is None and not args.inspect:
        raise InputError("DST is missing: expected the folder to write, or --inspect to write nothing")
    if args.target is not None and args.inspect:
        raise InputError(f"--inspect writes nothing: leave DST ({args.target!r}) out")
    if args.dense is None and (args.projector or args.vision_tower):
        raise InputError("--projector and --vision-tower belong to --dense average or --dense expert:N")
    asked = [name for name in ("config", "num_experts", "top_k", "strides") if getattr(args, name) is not None]
    if args.dense is not None and (asked or args.inspect):
        other = "inspect" if args.inspect else asked[0].replace("_", "-")
        raise InputError(f"--dense and --{other} exclude each other: a dense checkpoint has no experts to choose")


def _inspect(args: argparse.Namespace, source: Source, layout: TensorLayout) -> str:
    from tam_plugin.checkpoint.figures import describe, inspect

    tam, pool_mode_given = asked_config(args)
    values = inspect(source, layout, tam, duration_s=args.duration, pool_mode_given=pool_mode_given)
    return json.dumps(values) if args.json else describe(values)


def _convert(args: argparse.Namespace, source: Source, layout: TensorLayout) -> str:
    from tam_plugin.checkpoint import densify, upcycle
    from tam_plugin.checkpoint.mapping_dense import DenseChoice
    from tam_plugin.checkpoint.target import Options
    from tam_plugin.inductor.stored import STORED_NAME, inductor_files, inductor_folder, store_inductor

    options = Options(transfer=args.transfer, overwrite=args.overwrite, progress=True)
    if args.dense is not None:
        choice = DenseChoice.parse(args.dense, args.projector or "stride:2")
        summary = densify(source, args.target, layout, choice, vision_tower=args.vision_tower, options=options)
    else:
        tam, pool_mode_given = asked_config(args)
        inductor = tam.inductor
        if inductor is not None:
            inductor_files(inductor_folder(inductor), inductor)  # refused before anything is written
            tam = tam.replace(inductor=STORED_NAME)
        summary = upcycle(
            source, args.target, layout, tam, seed=args.seed, pool_mode_given=pool_mode_given, options=options
        )
        if inductor is not None:
            store_inductor(inductor, args.target)
    values = dataclasses.asdict(summary)
    return json.dumps(values) if args.json else describe_summary(values)


def asked_config(args: argparse.Namespace) -> tuple[TamConfig, bool]:
    """The configuration that the arguments ask for, and whether they choose the pooling mode.

    Raises:
        ConfigError: the file or a value is bad.
    """
    from tam_plugin.config import TamConfig

    tam = TamConfig() if args.config is None else TamConfig.from_yaml(args.config)
    moe = {"num_experts": args.num_experts, "top_k": args.top_k}
    tam = tam.replace(moe={name: value for name, value in moe.items() if value is not None})
    if args.strides is not None:
        try:
            strides = tuple(int(part) for part in args.strides.split(","))
        except ValueError:
            raise ConfigError(f"--strides {args.strides!r}: expected whole numbers, such as 1,2,3,4") from None
        tam = tam.replace(projector={"strides": strides})
    return tam, args.config is not None


def describe_summary(values: dict[str, Any]) -> str:
    """What a conversion did, for people."""
    shards = [f"{values[kind]} {kind}" for kind in ("linked", "copied", "written", "resumed") if values[kind]]
    lines = [
        f"checkpoint  {values['folder']}",
        f"shards      {', '.join(shards)}",
        f"bytes       {values['read_bytes']:,} read, {values['written_bytes']:,} written in {values['seconds']:.1f} s",
    ]
    return "\n".join([*lines, *(f"note        {note}" for note in values["notes"])])
