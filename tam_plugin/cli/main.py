"""Entry point of ``tam``: finds the command, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done; 2 bad input (one line on stderr, no traceback unless ``--debug``); 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import tam_plugin
from tam_plugin.errors import TamError

COMMANDS = ("plan", "ask", "doctor", "bench")


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command; building it imports neither torch nor transformers."""
    parser = OneLineParser(prog="tam", description="Task-aware visual budgets for video language models.")
    parser.add_argument("--version", action="version", version=f"tam-plugin {tam_plugin.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    for name in COMMANDS:
        importlib.import_module(f"tam_plugin.cli.{name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = build_parser().parse_args(argv)
    _quiet_libraries()
    with warnings.catch_warnings():
        warnings.showwarning = _show_notice
        try:
            return args.run(args)
        except TamError as error:
            if args.debug:
                raise
            print(f"tam {args.command}: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"tam {args.command}: interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


def _quiet_libraries() -> None:
    """Keep libraries' progress bars and advice out of a command's output."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _show_notice(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Notices of this package are one line on stderr; warnings of other packages are not the user's concern."""
    if issubclass(category, tam_plugin.errors.TamNotice):
        print(f"tam: note: {' '.join(str(message).split())}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
