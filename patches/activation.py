"""Install, uninstall and status of the LLaVA-NeXT patches, and what happens when ``llava`` is first imported.

Records on another package (lmms-eval's) have a patcher of their own, which their owner applies; :func:`uninstall` and
:func:`status` see it too.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from tam_plugin.errors import InputError
from tam_plugin.patches.hosts.llava_next import is_llava_next
from tam_plugin.patches.import_hooks import PostImportFinder, remove_waiter
from tam_plugin.patches.lifecycle import Patcher
from tam_plugin.patches.record import Patch

HOST = "llava"
GROUPS = ("compat", "tam")
_GUARD = threading.RLock()
_FOLLOWED: set[str] = set()
"""Names of the records that :func:`_finder` applies."""
_OTHERS: list[Patcher] = []
"""Patchers of other packages than the host."""


def patcher() -> Patcher:
    """The one patcher of this process, with every record; compat records come first."""
    with _GUARD:
        return _patcher()


@lru_cache(maxsize=1)
def _patcher() -> Patcher:
    from tam_plugin.patches import compat, llava_next

    return Patcher([*compat.RECORDS, *llava_next.RECORDS], rebind=HOST)


def add_patcher(other: Patcher) -> None:
    """Let :func:`uninstall` take back what ``other`` changes, and :func:`status` list it; again does nothing."""
    with _GUARD:
        if other not in _OTHERS:
            _OTHERS.append(other)


def install(only: str | None = None) -> None:
    """Check every patch and apply all of them, or none; a second call does nothing.

    LLaVA-NeXT is imported; the repairs that its import needs come first. With the plugin installed in the same
    environment this is not needed: importing ``llava`` does it (unless ``TAM_PLUGIN=0``).

    Args:
        only: ``"compat"`` for the repairs alone, ``"tam"`` for the rest alone, None for both.

    Raises:
        InputError: there is no such group.
        HostDriftError: a symbol of the host is not what its patch was written for.
    """
    if only is not None and only not in GROUPS:
        raise InputError(f"only = {only!r}: expected {' or '.join(map(repr, GROUPS))}, or None for both")
    records = patcher().select(only)
    patcher().apply(records)
    _follow(records)


def uninstall() -> None:
    """Put the original objects back; importing ``llava`` no longer patches it."""
    remove_waiter()
    with _GUARD:
        _finder().remove()
        _FOLLOWED.clear()
    for one in (*_OTHERS, patcher()):
        one.undo()


@contextmanager
def installed(only: str | None = None) -> Iterator[None]:
    """``with installed():`` applies for the length of the block what was not applied before."""
    with patcher().applied(only):
        yield


def status() -> list[dict[str, str]]:
    """One row per patch: name, group, target, reason, and whether it is applied."""
    return [row for one in (patcher(), *_OTHERS) for row in one.status()]


def start() -> None:
    """Patch each module of the host as it is imported; called when ``llava`` is about to be executed.

    Records whose modules belong to other packages are applied at once, since the host binds from them. Another
    package of that name (the first LLaVA's) is not patched.
    """
    if is_llava_next(importlib.util.find_spec(HOST)):
        patcher().apply(patcher().records, import_modules=False)
        _follow(patcher().records)


def _follow(records: Iterable[Patch]) -> None:
    """Apply ``records`` whenever their modules are executed from now on."""
    with _GUARD:
        _FOLLOWED.update(record.name for record in records)
        _finder().install()


@lru_cache(maxsize=1)
def _finder() -> PostImportFinder:
    one = patcher()
    modules = (record.module_name for record in one.records if one.is_of_host(record))
    return PostImportFinder(modules, lambda module: one.executed(module, _FOLLOWED))
