"""Runs at interpreter start, from a ``.pth`` beside the installed package: waits for LLaVA-NeXT to be imported.

It is copied to site-packages as ``_tam_plugin_boot`` and imports nothing that is not loaded already, so that it
costs a fraction of a millisecond. ``TAM_PLUGIN=0`` turns it off.
"""

import os
import sys


class Waiter:
    """Leaves ``sys.meta_path`` and starts the plugin when ``llava`` is first looked for."""

    def find_spec(self, name, path=None, target=None):
        if name == "llava" and self in sys.meta_path:
            sys.meta_path.remove(self)
            from tam_plugin.patches.activation import start

            start()


if os.environ.get("TAM_PLUGIN", "1") != "0":
    sys.meta_path.insert(0, Waiter())
