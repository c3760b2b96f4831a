"""Checkpoints on disk: dense ↔ mixture, adapter over base → whole, shard by shard, without building a model.

The core knows tensors by a :class:`TensorLayout` that it is handed; the layouts of the hosts lie with the hosts.
"""

from tam_plugin.checkpoint.convert import Summary, densify, merge, upcycle
from tam_plugin.checkpoint.figures import inspect
from tam_plugin.checkpoint.source import Source, open_source
from tam_plugin.checkpoint.tensor_layout import TensorLayout

__all__ = ["Source", "Summary", "TensorLayout", "densify", "inspect", "merge", "open_source", "upcycle"]
