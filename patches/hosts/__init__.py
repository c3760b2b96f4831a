"""The registry of hosts: which there are, which one a checkpoint belongs to, and what each of them can do.

Importing it imports no host, and neither torch nor transformers.
"""

from tam_plugin.patches.hosts.host import Host, HostState, LmmsModel
from tam_plugin.patches.hosts.registry import (
    check_host,
    find_host,
    host_named,
    host_of,
    hosts,
    lmms_models,
    load_assistant,
    register_host,
    unregister_host,
)

__all__ = [
    "Host",
    "HostState",
    "LmmsModel",
    "check_host",
    "find_host",
    "host_named",
    "host_of",
    "hosts",
    "lmms_models",
    "load_assistant",
    "register_host",
    "unregister_host",
]
