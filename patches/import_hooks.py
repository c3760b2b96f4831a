"""Callbacks that run right after a module was executed, whoever imports it.

Importers of a patched name bind it after its module ran, so patching the defining module then is enough.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType

from tam_plugin.patches import boot


class PostImportFinder(boot.ImportHook):
    """A finder that lets the others find, and calls back after a watched module was executed, also by a reload.

    Args:
        names: the modules to watch.
        callback: called with each of them.
    """

    def __init__(self, names: Iterable[str], callback: Callable[[ModuleType], None]) -> None:
        super().__init__(names, after=callback)


def remove_waiter() -> None:
    """Let no later import of ``llava`` start the plugin by itself."""
    sys.meta_path = [finder for finder in sys.meta_path if type(finder).__module__ != boot.MODULE]
