"""The policy inside a checkpoint: the mapping itself, never the name of a file."""

from __future__ import annotations

from typing import Any

from tam_plugin.budget.named import read_policy
from tam_plugin.budget.protocol import Policy
from tam_plugin.config import short
from tam_plugin.errors import ConfigError


def policy_to_store(policy: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """What a checkpoint holds for ``TamConfig.policy``: the policy itself in place of a file's name.

    So a reload does not depend on a file, and no checkpoint has a reason to name one.

    Raises:
        ConfigError: the file cannot be read, or holds no policy.
    """
    return read_policy(policy).to_dict() if isinstance(policy, str) else policy


def stored_policy(policy: str | dict[str, Any] | None) -> Policy:
    """The policy that a checkpoint holds; the default where it holds none.

    Raises:
        ConfigError: it is invalid, or the checkpoint names a file instead.
    """
    if isinstance(policy, str):
        raise ConfigError(
            f"config.json names the policy file {short(policy)} (tam.policy): files that a checkpoint names are not "
            "read; give the policy yourself (--policy FILE; --tam_policy FILE in training), or put it into "
            "config.json in place of the name"
        )
    return read_policy(policy)
