"""Training flags that the host's scripts use under older names, and fields that its trainer reads."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import lacks
from tam_plugin.patches.record import Patch

RENAMED = {"evaluation_strategy": "eval_strategy", "warmup_ratio": "warmup_steps", "no_cuda": "use_cpu"}
"""Flag in the host's scripts → the flag that took its place; a warmup below 1 is still a share of the steps."""


def _some_flag_was_renamed(module: ModuleType) -> bool:
    from transformers import TrainingArguments

    fields = TrainingArguments.__dataclass_fields__
    return any(old not in fields and new in fields for old, new in RENAMED.items())


def renamed(arguments: list[str], known: Any) -> list[str]:
    """Arguments with the flags that ``known`` lacks under the names that it has; ``--flag=value`` too."""
    out = []
    for given in arguments:
        flag, equals, value = given.partition("=")
        new = RENAMED.get(flag.removeprefix("--").replace("-", "_")) if flag.startswith("--") else None
        if new is not None and flag not in known and f"--{new}" in known:
            out.append(f"--{new}{equals}{value}")
        else:
            out.append(given)
    return out


def _parse(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def parse_args_into_dataclasses(self: Any, args: list[str] | None = None, *rest: Any, **more: Any) -> Any:
        known = self._option_string_actions
        if args is not None:
            return original(self, renamed(list(args), known), *rest, **more)
        before = sys.argv
        sys.argv = [*before[:1], *renamed(before[1:], known)]
        try:
            return original(self, None, *rest, **more)
        finally:
            sys.argv = before

    return parse_args_into_dataclasses


def _group_by_length(_absent: Any) -> property:
    def group_by_length(self: Any) -> bool:
        """Whether samples are grouped by length; the setting that took this field's place decides."""
        return getattr(self, "train_sampling_strategy", None) == "group_by_length"

    return property(group_by_length)


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="trainer_arguments.renamed_flags",
        target="transformers.hf_argparser:HfArgumentParser.parse_args_into_dataclasses",
        reason="the host's scripts pass --evaluation_strategy and --warmup_ratio, which were renamed",
        wrap=_parse,
        group="compat",
        needed=_some_flag_was_renamed,
    ),
    Patch(
        name="trainer_arguments.group_by_length",
        target="transformers.training_args:TrainingArguments.group_by_length",
        reason="the host's sampler reads it",
        wrap=_group_by_length,
        group="compat",
        may_be_absent=True,
        needed=lacks("TrainingArguments.group_by_length"),
    ),
    Patch(
        name="trainer_arguments.past_index",
        target="transformers.training_args:TrainingArguments.past_index",
        reason="the host's trainer reads it",
        wrap=lambda _absent: -1,
        group="compat",
        may_be_absent=True,
        needed=lambda module: not hasattr(module.TrainingArguments, "past_index"),
    ),
)
