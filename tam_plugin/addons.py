"""Add-ons: installed packages that register samplers, policies, token reducers or hosts of their own.

Such a package names a module in its entry points, and the module registers when it is imported::

    [options.entry_points]
    tam_plugin.addons =
        mine = my_package.tam

Add-ons are imported when a name is requested that the plugin itself does not have, and before the plugin determines
which host a checkpoint belongs to, since an add-on's host may claim one that a built-in host would also accept.
Otherwise they cost nothing.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Mapping
from typing import TypeVar

from tam_plugin.errors import ConfigError, TamError, reason_of

GROUP = "tam_plugin.addons"

T = TypeVar("T")


def find(registered: Mapping[str, T], name: str) -> T | None:
    """What is registered under a name, by the plugin or an add-on; None if nothing is.

    Raises:
        ConfigError: an add-on cannot be imported.
    """
    if name not in registered:
        load()
    return registered.get(name)


@functools.cache
def load() -> None:
    """Import every add-on, once per process.

    Raises:
        ConfigError: one of them cannot be imported.
    """
    for entry in importlib.metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except TamError:
            raise
        except Exception as error:  # whatever a stranger's module raises
            raise ConfigError(
                f"the add-on {entry.name!r} ({entry.value}) cannot be imported: {reason_of(error)}; fix or uninstall it"
            ) from error
