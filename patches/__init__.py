"""Everything that touches a host: the one place that knows a host's names.

``patches.onevision`` extends transformers' LlavaOnevision classes by subclassing; it patches nothing.
"""

from tam_plugin.patches.hosts import Host, hosts

__all__ = ["Host", "hosts"]
