"""Callbacks that run right after a module was executed, whoever imports it.

Importers of a patched name bind it after its module ran, so patching the defining module then is enough.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class PostImportFinder:
    """A finder that lets the others find, and calls back after a watched module was executed."""

    def __init__(self, names: Iterable[str], callback: Callable[[ModuleType], None]) -> None:
        self._names = set(names)
        self._callback = callback
        self._busy: set[str] = set()

    def install(self) -> None:
        """Go first on ``sys.meta_path``; a second call does nothing."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Leave ``sys.meta_path``."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # type: ignore[arg-type]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec that the other finders give, with a loader that calls back; None for modules not watched."""
        if name not in self._names or name in self._busy:
            return None
        self._busy.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._busy.discard(name)
        if spec is None or spec.loader is None or not hasattr(spec.loader, "exec_module"):
            return spec
        _call_after_exec(spec.loader, self._callback)
        return spec


def _call_after_exec(loader: Any, callback: Callable[[ModuleType], None]) -> None:
    """Replace ``exec_module`` on this one loader object; tools that look at the loader still see its own class."""
    exec_module = loader.exec_module

    def exec_then_call(module: ModuleType) -> None:
        exec_module(module)
        del loader.exec_module
        callback(module)

    loader.exec_module = exec_then_call
