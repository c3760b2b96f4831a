"""Entry point of ``tam``: finds the command, runs it, and turns errors into one line and an exit code.

Exit codes: 0 done; 2 bad input, or a machine that refuses (a full disk, no permission); 3 training would stop
(``plan-data``); 130 interrupted; 1 a defect.
An error is one line on stderr; ``--debug`` shows its traceback.
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
from tam_plugin.cli.failures import describe
from tam_plugin.cli.streams import safe_output, say
from tam_plugin.errors import TamNotice, one_line

COMMANDS = (
    "plan",
    "ask",
    "plan_data",
    "data",
    "inductor",
    "upcycle",
    "merge",
    "recipe",
    "doctor",
    "bench",
    "flops",
    "report",
    "eval",
)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {one_line(message)} (see '{self.prog} --help')\n")


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
    with safe_output():
        return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    args = argparse.Namespace(command="", debug=False)
    try:
        args = build_parser().parse_args(argv)
        _quiet_libraries()
        with warnings.catch_warnings():
            warnings.showwarning = _show_notice
            code = args.run(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        say(f"tam {args.command}: interrupted")
        return 130
    except Exception as error:
        if args.debug:
            raise
        text, code = describe(error)
        say(f"tam {args.command}: {text}")
        return code


def _quiet_libraries() -> None:
    """Keep libraries' advice out of a command's output."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _show_notice(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Notices of this package are one line on stderr; warnings of other packages are not the user's concern."""
    if issubclass(category, TamNotice):
        say(f"tam: note: {message}")


if __name__ == "__main__":
    sys.exit(main())
