"""A policy by what names it: a kind and its values, a file, or the mapping that a checkpoint holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tam_plugin import addons
from tam_plugin.budget.fixed import KIND, FixedPolicy
from tam_plugin.budget.policy import BudgetPolicy
from tam_plugin.budget.protocol import Policy
from tam_plugin.config import short
from tam_plugin.errors import ConfigError, TamError, reason_of


class PolicyKind(Protocol):
    """Makes policies of a kind."""

    def from_text(self, text: str) -> Policy:
        """The policy of ``KIND:TEXT``; raises ConfigError if the text is invalid."""

    def from_dict(self, values: dict[str, Any]) -> Policy:
        """The policy of a mapping, as its ``to_dict`` gives it, with ``kind``; raises ConfigError if it is invalid."""


_KINDS: dict[str, PolicyKind] = {KIND: FixedPolicy}


def register_policy(kind: str, policies: PolicyKind) -> None:
    """Make policies of another kind known wherever a policy is named (``--policy KIND:TEXT``, a checkpoint).

    Args:
        kind: its name, of letters, digits and underscores.
        policies: makes them, such as the class.

    Raises:
        ConfigError: the name is taken, or none.
    """
    if not kind.isidentifier():
        raise ConfigError(f"kind of policy {kind!r}: expected letters, digits and underscores")
    if _KINDS.setdefault(kind, policies) is not policies:
        raise ConfigError(f"kind of policy {kind!r} is registered already: choose another name")


def unregister_policy(kind: str) -> None:
    """Forget a kind of policy."""
    _KINDS.pop(kind, None)


def read_policy(policy: str | Mapping[str, Any] | None) -> Policy:
    """The policy that a user, or a configuration, names.

    Args:
        policy: None for the default; ``KIND:TEXT`` such as ``fixed:64:2``; the path of a policy file; or a mapping.

    Raises:
        ConfigError: there is no such policy, or a field of it is missing, unknown or out of range.
    """
    if isinstance(policy, Mapping):
        kind = policy.get("kind")
        if kind is None:
            return BudgetPolicy.from_dict(dict(policy))
        kinds = addons.find(_KINDS, kind) if isinstance(kind, str) else None
        if kinds is None:
            raise ConfigError(f"policy: kind = {short(kind)}: expected one of {', '.join(_KINDS)}, or no kind")
        return _made(kinds.from_dict, dict(policy), f"policy {short(dict(policy))}")
    kind, colon, text = (policy or "").partition(":")
    if colon and kind not in _KINDS and kind.isidentifier() and not os.path.exists(str(policy)):
        addons.load()
    if colon and kind in _KINDS:
        return _made(_KINDS[kind].from_text, text, f"policy {str(policy)!r}")
    return BudgetPolicy.from_yaml(policy)


def _made(make: Callable[[Any], Policy], given: Any, where: str) -> Policy:
    """The policy that a kind makes of what was given; what it cannot read may come from anywhere."""
    try:
        return make(given)
    except TamError:
        raise
    except Exception as error:  # whatever a kind of policy raises over values that are none of its own
        raise ConfigError(f"{where} cannot be read: {reason_of(error)}") from error
