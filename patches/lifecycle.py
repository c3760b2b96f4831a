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
    """One attribute that was set: where, its name, and what stood there in the holder's own namespace."""

    holder: Any
    name: str
    before: Any

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
        self._changes: dict[str, list[_Change]] = {}
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
                self._changes[record.name] = []
                done.append(record.name)
                self._apply_one(record, module)
                self._states[record.name] = APPLIED
        except BaseException:
            self._undo(done)
            raise

    def _apply_one(self, record: Patch, module: ModuleType) -> None:
        holder, name = record.owner(module)
        original = getattr(holder, name, ABSENT)
        own = vars(holder).get(name, ABSENT)
        replacement = record.wrap(original)
        changes = self._changes[record.name]
        changes.append(_Change(holder, name, own))
        setattr(holder, name, replacement)
        if holder is module and original is not ABSENT:
            for other in _modules_of(self._rebind):
                for bound in [key for key, value in vars(other).items() if value is original]:
                    changes.append(_Change(other, bound, original))
                    setattr(other, bound, replacement)

    def undo(self) -> None:
        """Put everything back, last change first."""
        self._undo(list(self._changes))
        self._states.clear()

    def _undo(self, names: list[str]) -> None:
        for name in reversed(names):
            for change in reversed(self._changes.pop(name)):
                change.undo()
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
        return {name: (c[0].holder, c[0].name, c[0].before) for name, c in self._changes.items() if c}

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
