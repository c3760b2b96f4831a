"""Records that add ``--tam_*`` to the host's argument parser and hand the values on."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NoReturn

from tam_plugin.errors import ConfigError, InputError, TamError
from tam_plugin.patches.llava_next.command_line.arguments import VISION_TOWER, TamArguments
from tam_plugin.patches.record import Patch

PARSER = "transformers.hf_argparser:HfArgumentParser"
_HOST_FIELDS = {"vision_tower", "vision_tower_pretrained", "mm_tunable_parts"}


def _is_hosts(dataclass_type: Any) -> bool:
    if not dataclasses.is_dataclass(dataclass_type):
        return False
    names = {f.name for f in dataclasses.fields(dataclass_type)}
    return names >= _HOST_FIELDS


def _add_arguments(original: Callable) -> Callable:
    @functools.wraps(original)
    def __init__(self, dataclass_types=None, **kwargs):
        if isinstance(dataclass_types, Iterable):
            dataclass_types = list(dataclass_types)
            if any(map(_is_hosts, dataclass_types)):
                dataclass_types.append(TamArguments)
        original(self, dataclass_types, **kwargs)

    return __init__


def _hand_on(original: Callable) -> Callable:
    @functools.wraps(original)
    def parse_args_into_dataclasses(self, args=None, *rest, **kwargs):
        if TamArguments not in getattr(self, "dataclass_types", ()):
            return original(self, args, *rest, **kwargs)
        from tam_plugin.patches.llava_next.command_line import script_errors

        script_errors.install()
        given = sys.argv[1:] if args is None else list(args)
        check_names(given)
        with _one_line_errors(self) if asks_for_tam(given) else nullcontext():
            parsed = original(self, args, *rest, **kwargs)
        tam_args = next(value for value in parsed if isinstance(value, TamArguments))
        others = tuple(value for value in parsed if value is not tam_args)
        for value in others:
            if dataclasses.is_dataclass(value):
                setattr(value, "tam_args", tam_args)  # noqa: B010 (no field of theirs)
        _check_values(others, tam_args)
        return others

    return parse_args_into_dataclasses


def asks_for_tam(args: Iterable[str]) -> bool:
    """Whether a command line asks for the TAM tower or sets anything of it."""
    words = list(args)
    tower = any((_flag(name), value) == ("--vision_tower", VISION_TOWER) for name, value in pairwise(words))
    return tower or any(_flag(w).startswith("--tam_") or _flag(w) == f"--vision_tower={VISION_TOWER}" for w in words)


def _flag(word: str) -> str:
    """A word of a command line, its flag as the host's scripts write it: the parser takes dashes for underscores."""
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}" if name.startswith("--") else word


@contextmanager
def _one_line_errors(parser: Any) -> Iterator[None]:
    """What argparse and the host's argument classes say of a command line, as errors of one line.

    argparse would print the usage of some 250 arguments before it, and each rank would.
    """

    def error(message: str) -> NoReturn:
        raise InputError(re.sub(r"^argument (--\w+)(/--[\w-]+)*: ", r"\1: ", message))

    parser.error = error
    try:
        yield
    except TamError:
        raise
    except ValueError as problem:
        unknown = re.search(r"not used by the HfArgumentParser: \[(.*)\]", str(problem), re.DOTALL)
        if unknown is None:
            raise InputError(str(problem)) from problem
        name = next((w for w in re.findall(r"'([^']*)'", unknown[1]) if w.startswith("--")), unknown[1])
        raise InputError(_no_such(name.partition("=")[0], parser._option_string_actions)) from problem
    finally:
        del parser.error


def _no_such(name: str, known: Iterable[str]) -> str:
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"{name}: there is no such argument; " + (f"did you mean {close[0]}?" if close else "--help lists them")


def check_names(args: Iterable[str]) -> None:
    """Refuse a ``--tam_*`` argument that does not exist.

    Raises:
        ConfigError: with the nearest one that does.
    """
    known = [f"--{f.name}" for f in dataclasses.fields(TamArguments)]
    for arg in args:
        name = _flag(arg).partition("=")[0]
        if name.startswith("--tam_") and name not in known:
            raise ConfigError(_no_such(name, known))


def _check_values(parsed: tuple[Any, ...], tam_args: TamArguments) -> None:
    model_args = next(value for value in parsed if _is_hosts(value))
    if model_args.vision_tower == VISION_TOWER:
        from tam_plugin.patches.llava_next.command_line.preflight import check_training

        check_training(SimpleNamespace(**{name: v for part in parsed for name, v in vars(part).items()}))
    elif tam_args.given():
        raise ConfigError(
            f"--{tam_args.given()[0]} needs --vision_tower {VISION_TOWER}; "
            f"--vision_tower is {model_args.vision_tower!r}"
        )


RECORDS = (
    Patch(
        name="arguments.parser",
        target=f"{PARSER}.__init__",
        reason="the host's scripts accept --tam_* arguments",
        wrap=_add_arguments,
        signatures=(("self", "dataclass_types", "kwargs"),),
        requires=(PARSER,),
    ),
    Patch(
        name="arguments.parse",
        target=f"{PARSER}.parse_args_into_dataclasses",
        reason="--tam_* values are checked before any weight is loaded and reach model_args and data_args as tam_args",
        wrap=_hand_on,
        signatures=(
            ("self", "args", "return_remaining_strings", "look_for_args_file", "args_filename", "args_file_flag"),
        ),
        requires=(PARSER,),
    ),
)
