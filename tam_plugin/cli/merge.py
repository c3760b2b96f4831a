"""``tam merge``: what a LoRA or projector-only run saved and its base become a whole checkpoint on disk."""

from __future__ import annotations

import argparse
import dataclasses
import json

DESCRIPTION = (
    "Make a whole TAM checkpoint of what a LoRA or projector-only run of LLaVA-NeXT saved (its output_dir or a "
    "checkpoint-N) and of the checkpoint that it started from, without loading the model into memory. Rerun the same "
    "command to resume a killed run."
)


def add_parser(subparsers) -> None:
    """Register the command."""
    parser = subparsers.add_parser("merge", help="merge LoRA or a projector into its base checkpoint, on disk")
    parser.description = DESCRIPTION
    parser.add_argument("adapter", metavar="ADAPTER", help="folder that the run saved into, or its name on the hub")
    parser.add_argument("target", metavar="DST", help="folder to write")
    parser.add_argument(
        "--base",
        required=True,
        metavar="BASE",
        help="checkpoint folder that the run started from, or its name on the hub",
    )
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
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the two folders, merge, and print a summary."""
    from tam_plugin.checkpoint import merge, open_source
    from tam_plugin.checkpoint.source import CONFIG, read_json
    from tam_plugin.checkpoint.target import Options
    from tam_plugin.cli.upcycle import describe_summary
    from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder
    from tam_plugin.patches.hosts import host_of

    options = Options(transfer=args.transfer, overwrite=args.overwrite, progress=True)
    run_folder = "the output_dir or a checkpoint-N of a run"
    adapter = model_folder(args.adapter, (*TEXT_FILES, *WEIGHTS), option="ADAPTER", expected=run_folder)
    host = host_of(read_json(adapter / CONFIG), str(adapter))
    base = open_source(model_folder(args.base, TEXT_FILES, WEIGHTS, option="--base", expected="a checkpoint folder"))
    try:
        parts = host.open_parts(adapter, base)
        try:
            values = dataclasses.asdict(merge(base, args.target, parts, options=options))
        finally:
            parts.close()
    finally:
        base.close()
    print(json.dumps(values) if args.json else describe_summary(values))
    return 0
