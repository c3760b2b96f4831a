"""Everything that touches a host: the one place that knows a host's names.

``patches.onevision`` extends transformers' LlavaOnevision classes by subclassing and patches nothing.
``patches.llava_next`` and ``patches.compat`` are records of changes to LLaVA-NeXT, applied by ``activation``.
"""

from tam_plugin.patches.activation import install, installed, status, uninstall

__all__ = ["install", "installed", "status", "uninstall"]
