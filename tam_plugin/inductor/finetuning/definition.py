"""The YAML definition of a further task type: label, description, and how the budget policy is to treat it.

::

    label: Very Long Videos
    description: Questions about single moments of videos that last for hours.
    policy: {group: frames}          # a group of the policy, or a whole rule as a group of the policy file has it
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_yaml
from tam_plugin.inductor.finetuning.rows import normalised
from tam_plugin.taxonomy import TaskExtension, TaskType

LABEL_CHARS = 80
_FIELDS = ("label", "description", "policy")


def read_definition(path: str | Path) -> TaskExtension:
    """Read a definition; whether its group exists and its rule is sound, the policy says
    (:meth:`BudgetPolicy.extension_rule`).

    Raises:
        ConfigError: the file cannot be read, or a field is missing, unknown or of the wrong kind.
    """
    where = f"task definition {str(path)!r}"
    values = read_yaml(path, what="task definition")
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping of {', '.join(_FIELDS)}, got {short(values)}")
    for name in values:
        if name not in _FIELDS:
            raise ConfigError(f"{where}: unknown field {short(name)}; expected {', '.join(_FIELDS)}")
    for name in _FIELDS:
        if name not in values:
            raise ConfigError(f"{where}: {name} is missing; expected {', '.join(_FIELDS)}")
    label, description, policy = (values[name] for name in _FIELDS)
    if not isinstance(label, str) or len(label) > LABEL_CHARS or not any(c.isalpha() for c in label):
        raise ConfigError(f"{where}: label = {short(label)}: expected a name of at most {LABEL_CHARS} characters")
    if not isinstance(policy, dict) or not policy:
        raise ConfigError(f"{where}: policy = {short(policy)}: expected group: NAME, or a whole rule")
    own: dict[str, Any] = policy if set(policy) == {"group"} else {"rule": policy}
    if "group" in policy and len(policy) > 1:
        raise ConfigError(f"{where}: policy holds a group and {len(policy) - 1} more; expected group alone, or a rule")
    try:
        return TaskExtension(label=label.strip(), description=description, **own)
    except InputError as error:
        raise ConfigError(f"{where}: {error}") from error


def check_new(label: str, others: Sequence[str]) -> None:
    """Refuse a label that a task type or another output has already.

    Raises:
        ConfigError: it does.
    """
    taken = {normalised(name): name for name in others}
    taken |= {normalised(name): task.label for task in TaskType for name in (task.label, task.name)}
    if normalised(label) in taken:
        raise ConfigError(f"label {label!r} exists already ({taken[normalised(label)]}); expected one of its own")
