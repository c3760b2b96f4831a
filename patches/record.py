"""The patch record: one change to one symbol of a host, with what it expects to find and why it is made."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tam_plugin.errors import TamError


class HostDriftError(TamError, ImportError):
    """A host's symbol is not what a patch was written for; the message names it, the expected and the found."""


ABSENT = object()
"""Stands for "the attribute is not there", where None could be a value."""


def _always(module: ModuleType) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One change.

    Attributes:
        name: unique, ``concern.symbol``.
        target: ``package.module:attribute`` or ``package.module:Class.method``.
        reason: why, in one sentence; ``tam doctor`` prints it.
        wrap: takes the original (:data:`ABSENT` if there is none) and returns what takes its place.
        group: ``tam`` (what a TAM model needs), ``compat`` (what the host itself needs on today's packages) or ``eval``
            (what lmms-eval is told).
        signatures: accepted parameter names of a callable target, each a full tuple; empty skips the check.
        may_be_absent: whether the attribute may be missing, because the patch provides it.
        needed: given the target's module, whether the symptom is present; a record that is not needed is skipped.
        requires: ``package.module:attribute`` symbols that must exist for the record to be of use (an older host
            without them skips it).
        remedy: what to do where the target is another than the record was written for; errors end with it.
    """

    name: str
    target: str
    reason: str
    wrap: Callable[[Any], Any]
    group: str = "tam"
    signatures: tuple[tuple[str, ...], ...] = ()
    may_be_absent: bool = False
    needed: Callable[[ModuleType], bool] = _always
    requires: tuple[str, ...] = ()
    remedy: str = "see 'tam doctor'; TAM_PLUGIN=0 runs the host without the plugin"

    @property
    def module_name(self) -> str:
        """The module that defines the target."""
        return self.target.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The target's dotted path inside its module."""
        return self.target.partition(":")[2]

    def owner(self, module: ModuleType) -> tuple[Any, str]:
        """The object that holds the target, and the target's own name.

        Raises:
            HostDriftError: a class on the way is missing.
        """
        *path, last = self.attribute.split(".")
        holder: Any = module
        for step in path:
            if not hasattr(holder, step):
                raise self.drift(f"{module.__name__} has no {step!r}")
            holder = getattr(holder, step)
        return holder, last

    def check(self, module: ModuleType) -> None:
        """Compare the target with what the record was written for.

        Raises:
            HostDriftError: it is missing, or its parameters are others.
        """
        holder, last = self.owner(module)
        found = getattr(holder, last, ABSENT)
        if found is ABSENT:
            if not self.may_be_absent:
                raise self.drift("it is missing")
            return
        if not self.signatures:
            return
        if not callable(found):
            raise self.drift(f"expected a callable, found {type(found).__name__}")
        names = tuple(inspect.signature(found).parameters)
        if names not in self.signatures:
            expected = " or ".join(f"({', '.join(s)})" for s in self.signatures)
            raise self.drift(f"expected parameters {expected}, found ({', '.join(names)})")

    def is_useful(self) -> bool:
        """Whether every symbol in ``requires`` exists (their modules are imported to see)."""
        return all(_resolve(symbol) is not ABSENT for symbol in self.requires)

    def drift(self, what: str) -> HostDriftError:
        """The error for a host that this record was not written for."""
        return HostDriftError(
            f"patch {self.name}: {self.target}: {what}; this {self.module_name.partition('.')[0]} is not one that the "
            f"plugin was written for ({self.remedy})"
        )


def import_module(name: str) -> ModuleType:
    """Import a module, its packages first, and wait for a thread that is executing it.

    Python locks a module before its packages. Where a package imports its modules, as the host does, two threads that
    import both can each hold what the other one needs.

    Raises:
        ImportError: there is no such module, or it cannot be imported.
    """
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        module = importlib.import_module(".".join(parts[:end]))
    return module


def _resolve(symbol: str) -> Any:
    module_name, _, attribute = symbol.partition(":")
    try:
        value: Any = import_module(module_name)
    except ImportError:
        return ABSENT
    for step in filter(None, attribute.split(".")):
        value = getattr(value, step, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value
