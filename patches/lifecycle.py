"""Applying patch records and undoing them: all of them or none, once, and back to the identical objects.

``_lock`` guards what was changed. No module of the host is imported while it is held: another thread may be importing
that module, and waits in its import hook for the lock. Calls that import the host, or take its repairs away, take turns
(``_turns``); no import hook ever waits for those.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

from tam_plugin.patches.record import ABSENT, Patch, import_module

APPLIED, NOT_NEEDED, WAITING, OFF = "applied", "not needed", "waiting for its module", "off"

_KEPT = "kept"
"""Wants a record until :meth:`Patcher.undo`."""


@dataclass(eq=False)
class _Change:
    """One attribute that was set: by which record, where, what stood in the holder's own namespace, what stands there.

    Attributes:
        is_overwritten: the module was executed again, so that its own object stands there anew; what other modules
            bound before is still the replacement.
    """

    record: Patch
    module: ModuleType
    holder: Any
    name: str
    before: Any
    after: Any
    is_overwritten: bool = False

    @property
    def place(self) -> tuple[int, str]:
        """Where it is; several records may change one place."""
        return id(self.holder), self.name

    def undo(self) -> None:
        if self.is_overwritten:
            return
        if self.before is ABSENT:
            delattr(self.holder, self.name)
        else:
            setattr(self.holder, self.name, self.before)


class _Found(NamedTuple):
    """A record, its module or None, whether the record is of use to this host, and its state without a module."""

    record: Patch
    module: ModuleType | None
    is_useful: bool
    otherwise: str


class Patcher:
    """Holds records and what was done with them; safe to use from several threads.

    A record stays applied as long as somebody wants it: a ``with`` block until its end, everybody else until
    :meth:`undo`.

    Args:
        records: every record, in the order of application.
        rebind: the host's package. Its modules may have bound a target by ``from … import``; those names follow. They
            are imported after the records on other packages were applied, since they may need those to be imported.
    """

    def __init__(self, records: Iterable[Patch], *, rebind: str) -> None:
        self.records = list(records)
        names = [record.name for record in self.records]
        assert len(set(names)) == len(names), "patch names must be unique"
        self._host = rebind
        self._turns = threading.RLock()
        self._lock = threading.RLock()
        self._changes: list[_Change] = []
        self._wanted: dict[str, set[object]] = {}
        self._states: dict[str, str] = {}

    def select(self, only: str | None) -> list[Patch]:
        """Records of one group, or all."""
        return [record for record in self.records if only in (None, record.group)]

    def is_of_host(self, record: Patch) -> bool:
        """Whether the record's target lies in the host's package."""
        return record.module_name.partition(".")[0] == self._host

    def apply(self, records: Iterable[Patch], *, import_modules: bool = True) -> None:
        """Check ``records``, then apply those that are needed and not yet applied; on any error none of them stays.

        Args:
            records: some of this patcher's records.
            import_modules: import the targets' modules of the host; otherwise records of modules that are not there
                wait for :meth:`executed`. Modules of other packages are imported in any case.

        Raises:
            HostDriftError: a target is not what its record was written for.
        """
        chosen = list(records)
        turn = self._turns if import_modules else nullcontext()
        with turn, self._wanting(chosen, import_modules), self._lock:
            for record in chosen:
                self._wanted.setdefault(record.name, set()).add(_KEPT)

    @contextmanager
    def applied(self, only: str | None = None) -> Iterator[None]:
        """Apply for the length of a ``with`` block; what somebody else wants as well stays applied after it."""
        with ExitStack() as block:
            with self._turns:
                block.enter_context(self._wanting(self.select(only), import_modules=True))
            yield

    @contextmanager
    def _wanting(self, records: Sequence[Patch], import_modules: bool) -> Iterator[None]:
        """Want and apply ``records``; when it ends, or fails, what nobody else wants is put back."""
        caller = object()
        with self._lock:
            for record in records:
                self._wanted.setdefault(record.name, set()).add(caller)
        try:
            # Only with the repairs of other packages can the host's modules be imported.
            self._apply_found(self._found([r for r in records if not self.is_of_host(r)], True))
            self._apply_found(self._found([r for r in records if self.is_of_host(r)], import_modules))
            yield
        finally:
            with self._lock:
                for record in records:
                    self._wanted.get(record.name, set()).discard(caller)
                self._undo({record.name for record in records if not self._wanted.get(record.name)})

    def executed(self, module: ModuleType, names: Collection[str]) -> None:
        """Apply the records on a module that was executed just now, for the first time or again.

        Args:
            module: a module of the host.
            names: the records to apply; looked at under the lock, so that what is taken out before :meth:`undo` is not
                applied after it.

        Raises:
            HostDriftError: a target is not what its record was written for.
        """
        if sys.modules.get(module.__name__) is not module:
            return
        records = [record for record in self.records if record.module_name == module.__name__]
        found = [_Found(record, module, record.is_useful(), NOT_NEEDED) for record in records]
        with self._lock:
            for change in self._changes:
                change.is_overwritten |= change.holder is module
            chosen = [one for one in found if one.record.name in names]
            self._apply_found(chosen)
            for one in chosen:
                self._wanted.setdefault(one.record.name, set()).add(_KEPT)

    def _found(self, records: Sequence[Patch], import_modules: bool) -> list[_Found]:
        """Where each record's module is; called without the lock, for it imports."""
        if import_modules and records:
            self._drop_remains()
        found = []
        for record in records:
            module = None
            if import_modules and record.is_useful():
                module = import_module(record.module_name)
            elif not import_modules:
                module = _whole(record.module_name)
            is_useful = module is not None and (import_modules or record.is_useful())
            found.append(_Found(record, module, is_useful, WAITING if not import_modules else NOT_NEEDED))
        return found

    def _drop_remains(self) -> None:
        """Forget what an import of the host that failed left in ``sys.modules``.

        The host itself catches such errors, so that a package of it can be there without its contents.
        """
        found = [(name, module) for name, module in sys.modules.copy().items() if name.startswith(self._host + ".")]
        if self._host not in sys.modules:  # asked after the list was made: no other thread is importing what is in it
            for name, module in found:
                if sys.modules.get(name) is module:
                    sys.modules.pop(name, None)

    def _apply_found(self, found: Sequence[_Found]) -> None:
        with self._lock:
            ready: list[tuple[Patch, ModuleType]] = []
            for record, module, is_useful, otherwise in found:
                if module is None:
                    if not any(change.record is record for change in self._changes):
                        self._states[record.name] = otherwise
                elif self._is_applied(record, module):
                    continue
                elif not is_useful or not record.needed(module):
                    self._states[record.name] = NOT_NEEDED
                else:
                    record.check(module)
                    ready.append((record, module))
            for record, module in ready:
                self._apply_one(record, module)

    def _is_applied(self, record: Patch, module: ModuleType) -> bool:
        holders = [c.holder for c in self._changes if c.record is record and not c.is_overwritten]
        return bool(holders) and any(holder is record.owner(module)[0] for holder in holders)

    def _apply_one(self, record: Patch, module: ModuleType) -> None:
        holder, name = record.owner(module)
        original = getattr(holder, name, ABSENT)
        own = vars(holder).get(name, ABSENT)
        replacement = record.wrap(original)
        self._changes.append(_Change(record, module, holder, name, own, replacement))
        setattr(holder, name, replacement)
        self._states[record.name] = APPLIED
        if holder is module and original is not ABSENT:
            self._rebind_names(original, replacement)

    def _rebind_names(self, old: Any, new: Any) -> None:
        """Let every name of the host's modules that is bound to ``old`` be bound to ``new``."""
        for module in _modules_of(self._host):
            for bound in [key for key, value in list(vars(module).items()) if value is old]:
                setattr(module, bound, new)

    def undo(self) -> None:
        """Put everything back, last change first, whoever wants it."""
        with self._turns, self._lock:
            self._wanted.clear()
            self._undo({change.record.name for change in self._changes})
            self._states.clear()

    def _undo(self, names: Collection[str]) -> None:
        """Put back the changes of ``names``; what was put on top of them is lifted off and put on again."""
        lifted: list[_Change] = []
        kept: list[_Change] = []
        places = set()
        for change in self._changes:
            goes = change.record.name in names
            (lifted if goes or change.place in places else kept).append(change)
            if goes and not change.is_overwritten:
                places.add(change.place)
        self._changes = kept
        for change in reversed(lifted):
            change.undo()
            # Modules that were imported meanwhile bound what they found. (A name that was not there before stays with
            # them: they could not have been imported without it.)
            if isinstance(change.holder, ModuleType) and change.before is not ABSENT:
                self._rebind_names(change.after, change.before)
            self._states[change.record.name] = OFF
        for change in lifted:
            if change.record.name not in names:
                self._apply_one(change.record, change.module)

    def originals(self) -> dict[str, tuple[Any, str, Any]]:
        """For each applied record: holder, attribute name, and the object that stood there."""
        with self._lock:
            return {change.record.name: (change.holder, change.name, change.before) for change in self._changes}

    def status(self) -> list[dict[str, str]]:
        """One row per record: name, group, target, reason, state."""
        with self._lock:
            states = dict(self._states)
        return [
            {
                "name": record.name,
                "group": record.group,
                "target": record.target,
                "reason": record.reason,
                "state": states.get(record.name, OFF),
            }
            for record in self.records
        ]


def _whole(name: str) -> ModuleType | None:
    """The module, unless it is not there or still being executed."""
    module = sys.modules.get(name)
    return None if getattr(getattr(module, "__spec__", None), "_initializing", False) else module


def _modules_of(package: str) -> list[ModuleType]:
    return [
        module
        for name, module in sys.modules.copy().items()
        if isinstance(module, ModuleType) and (name == package or name.startswith(package + "."))
    ]
