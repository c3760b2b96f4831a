"""Runs at interpreter start, from a ``.pth`` beside the installed package: waits for LLaVA-NeXT to be imported.

It is copied to site-packages as ``_tam_plugin_boot`` and imports nothing that is not loaded already, so that it
costs a fraction of a millisecond. ``TAM_PLUGIN=0`` turns it off. The copy outlives a deleted clone of the plugin;
nothing else that the interpreter does may suffer from that.
"""

import os
import sys

MODULE = "_tam_plugin_boot"


class ImportHook:
    """A finder that lets those behind it find, and calls back when a module that it watches is executed.

    ``sys.meta_path`` is replaced instead of shortened: taking a finder out of a list that an import is walking through,
    in this thread or another, would make that import skip the finder behind it.

    Args:
        names: the modules to watch.
        before: called with the module before it is executed.
        after: called with the module after it was executed.
    """

    def __init__(self, names, before=None, after=None):
        self.names = frozenset(names)
        self.before = before
        self.after = after

    def install(self):
        """Go first on ``sys.meta_path``; a second call does nothing."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self):
        """Leave ``sys.meta_path``; a second call does nothing."""
        if self in sys.meta_path:
            sys.meta_path = [finder for finder in sys.meta_path if finder is not self]

    def find_spec(self, name, path=None, target=None):
        """The spec that the finders behind this one give, with a loader that calls back; None for other modules."""
        if name not in self.names:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else ():
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):  # a namespace package has no loader, and nothing to execute
                    spec.loader = self._calling(spec.loader)
                return spec
        return None

    def _calling(self, loader):
        return _CallingLoader(loader, self)


class _CallingLoader:
    """Stands in for a module's loader until the module is executed; one loader may serve many modules (zipimport)."""

    def __init__(self, loader, hook):
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        if self._hook.before is not None:
            self._hook.before(module)
        self._loader.exec_module(module)
        if self._hook.after is not None:
            self._hook.after(module)


class Waiter(ImportHook):
    """Starts the plugin when ``llava`` is about to be executed, and is gone by then; only to find it starts nothing."""

    def __init__(self):
        super().__init__(["llava"], before=self._start)

    def _start(self, module):
        self.remove()
        try:
            from tam_plugin.patches.activation import start

            start()
        except Exception as error:
            if isinstance(error, getattr(sys.modules.get("tam_plugin.errors"), "TamError", ())):
                raise  # of this host, and written for its user
            if sys.stderr is not None:
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                print(
                    f"tam_plugin does not work here ({reason}): llava runs without it; reinstall it, or run "
                    "'pip uninstall tam-plugin'",
                    file=sys.stderr,
                )


def _start_waiting():
    if os.environ.get("TAM_PLUGIN", "1") == "0":
        return
    if not any(type(finder).__module__ == MODULE for finder in sys.meta_path):  # importlib.reload
        Waiter().install()


if __name__ == MODULE:
    _start_waiting()
