"""A row among ``--model_args``: what it decides, and what may not stand beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.eval.ablations.rows import find


def with_ablation(settings: Any) -> Any:
    """``settings`` with the policy and the instruction of the row that they name; as they are if they name none.

    Args:
        settings: of :mod:`tam_plugin.eval.lmms.settings`.

    Raises:
        ConfigError: there is no such row, or an argument is the row's to decide.
    """
    if settings.ablation is None:
        return settings
    row = find(settings.ablation)
    seed = settings.ablation_seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise _bad("ablation_seed", seed, "a whole number")
    decided = ["time_instruction", "task_instruction"]
    if not row.dfr or str(settings.policy).startswith("fixed:"):
        decided.append("policy")
    for name in decided:
        value = getattr(settings, name)
        if value is not None:
            raise _bad(name, value, f"nothing beside ablation={row.name}, which decides it")
    if row.draws and settings.batch_size != 1:
        raise _bad("batch_size", settings.batch_size, f"1 with ablation={row.name}, whose draws are each request's own")
    on = {"time_instruction": row.instruction, "task_instruction": row.instruction}
    return dataclasses.replace(settings, policy=settings.policy or row.policy, **on)


def _bad(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"model_args: {name} = {value!r}: expected {expected}")
