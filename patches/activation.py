"""Install, uninstall and status of the LLaVA-NeXT patches, and what happens when ``llava`` is first imported."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType

from tam_plugin.errors import InputError
from tam_plugin.patches.hosts import is_llava_next
from tam_plugin.patches.import_hooks import PostImportFinder
from tam_plugin.patches.lifecycle import Patcher

GROUPS = ("compat", "tam")


@lru_cache(maxsize=1)
def patcher() -> Patcher:
    """The one patcher of this process, with every record; compat records come first."""
    from tam_plugin.patches import compat, llava_next

    return Patcher([*compat.RECORDS, *llava_next.RECORDS], rebind="llava")


def install(only: str | None = None) -> None:
    """Check every patch, then apply all of them, or none; a second call does nothing.

    LLaVA-NeXT is imported. With the plugin installed in the same environment this is not needed: importing
    ``llava`` does it (unless ``TAM_PLUGIN=0``).

    Args:
        only: ``"compat"`` for the repairs alone, ``"tam"`` for the rest alone, None for both.

    Raises:
        InputError: there is no such group.
        HostDriftError: a symbol of the host is not what its patch was written for.
    """
    if only is not None and only not in GROUPS:
        raise InputError(f"only = {only!r}: expected {' or '.join(map(repr, GROUPS))}, or None for both")
    patcher().apply(patcher().select(only))


def uninstall() -> None:
    """Put back the very objects that stood there before."""
    _finder().remove()
    patcher().undo()


@contextmanager
def installed(only: str | None = None) -> Iterator[None]:
    """``with installed():`` applies for the length of the block what was not applied before."""
    with patcher().applied(only):
        yield


def status() -> list[dict[str, str]]:
    """One row a patch: name, group, target, reason, and whether it is applied."""
    return patcher().status()


def start() -> None:
    """Patch each module of the host as it is imported; called when ``llava`` is first looked for.

    Records whose modules belong to other packages are applied at once, since the host binds from them. Another
    package of that name (the first LLaVA's) is left alone.
    """
    if not is_llava_next(importlib.util.find_spec("llava")):
        return
    outside = [r for r in patcher().records if not _is_hosts(r.module_name)]
    patcher().apply(outside)
    patcher().apply([r for r in patcher().records if _is_hosts(r.module_name)], import_modules=False)
    _finder().install()


@lru_cache(maxsize=1)
def _finder() -> PostImportFinder:
    return PostImportFinder((r.module_name for r in patcher().records if _is_hosts(r.module_name)), _after_import)


def _after_import(module: ModuleType) -> None:
    name = getattr(module, "__name__", "")
    if sys.modules.get(name) is module:
        patcher().apply([r for r in patcher().records if r.module_name == name])


def _is_hosts(module_name: str) -> bool:
    return module_name.partition(".")[0] == "llava"
