"""Applying patch records and taking them back: all of them or none, once, and to the very same objects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tam_plugin.patches.record import ABSENT, Patch

APPLIED, NOT_NEEDED, WAITING, OFF = "applied", "not needed", "waiting for its module", "off"


@dataclass
class _Change:
    """One attribute that was set: where, its name, what stood in the holder's own namespace, and what stands there."""

    holder: Any
    name: str
    before: Any
    after: Any

    def undo(self) -> None:
        if self.before is ABSENT:
            delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, self.before)


class Patcher:
    """Holds records and what was done with them.

    Args:
        records: every record, in the order of application.
        rebind: package whose modules may have bound a target by ``from … import``; those names follow.
    """

    def __init__(self, records: Iterable[Patch], *, rebind: str) -> None:
        self.records = list(records)
        names = [record.name for record in self.records]
        assert len(set(names)) == len(names), "patch names must be unique"
        self._rebind = rebind
        self._changes: dict[str, _Change] = {}
        self._states: dict[str, str] = {}

    def select(self, only: str | None) -> list[Patch]:
        """Records of one group, or all."""
        return [record for record in self.records if only in (None, record.group)]

    def apply(self, records: Iterable[Patch], *, import_modules: bool = True) -> None:
        """Check all of ``records``, then apply those that are needed and not yet applied; on any error none stays.

        Args:
            records: some of this patcher's records.
            import_modules: import the targets' modules; otherwise records of modules that are not there wait.

        Raises:
            HostDriftError: a target is not what its record was written for.
        """
        ready: list[tuple[Patch, ModuleType]] = []
        for record in records:
            if record.name in self._changes:
                continue
            module = sys.modules.get(record.module_name)
            if module is None and import_modules and record.is_useful():
                module = importlib.import_module(record.module_name)
                if record.name in self._changes:
                    continue  # an import hook has applied it meanwhile
            if module is None:
                self._states[record.name] = WAITING if not import_modules else NOT_NEEDED
            elif not record.is_useful() or not record.needed(module):
                self._states[record.name] = NOT_NEEDED
            else:
                record.check(module)
                ready.append((record, module))
        done: list[str] = []
        try:
            for record, module in ready:
                self._apply_one(record, module)
                done.append(record.name)
                self._states[record.name] = APPLIED
        except BaseException:
            self._undo(done)
            raise

    def _apply_one(self, record: Patch, module: ModuleType) -> None:
        holder, name = record.owner(module)
        original = getattr(holder, name, ABSENT)
        own = vars(holder).get(name, ABSENT)
        replacement = record.wrap(original)
        self._changes[record.name] = _Change(holder, name, own, replacement)
        setattr(holder, name, replacement)
        if holder is module and original is not ABSENT:
            self._rebind_names(original, replacement)

    def _rebind_names(self, old: Any, new: Any) -> None:
        """Let every name of the host's modules that is bound to ``old`` be bound to ``new``."""
        for module in _modules_of(self._rebind):
            for bound in [key for key, value in vars(module).items() if value is old]:
                setattr(module, bound, new)

    def undo(self) -> None:
        """Put everything back, last change first."""
        self._undo(list(self._changes))
        self._states.clear()

    def _undo(self, names: list[str]) -> None:
        for name in reversed(names):
            change = self._changes.pop(name)
            change.undo()
            # Modules that were imported meanwhile bound what they found. (A name that was not there before stays with
            # them: they could not have been imported without it.)
            if isinstance(change.holder, ModuleType) and change.before is not ABSENT:
                self._rebind_names(change.after, change.before)
            self._states[name] = OFF

    @contextmanager
    def applied(self, only: str | None = None) -> Iterator[None]:
        """Apply for the length of a ``with`` block; what was applied before stays applied after."""
        before = set(self._changes)
        self.apply(self.select(only))
        try:
            yield
        finally:
            self._undo([name for name in self._changes if name not in before])

    def originals(self) -> dict[str, tuple[Any, str, Any]]:
        """For each applied record: holder, attribute name, and the object that stood there."""
        return {name: (c.holder, c.name, c.before) for name, c in self._changes.items()}

    def status(self) -> list[dict[str, str]]:
        """One row a record: name, group, target, reason, state."""
        return [
            {
                "name": record.name,
                "group": record.group,
                "target": record.target,
                "reason": record.reason,
                "state": self._states.get(record.name, OFF),
            }
            for record in self.records
        ]


def _modules_of(package: str) -> list[ModuleType]:
    return [
        module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and (name == package or name.startswith(package + "."))
    ]
