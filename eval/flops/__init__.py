"""FLOPs tables: what models cost by the arithmetic of ``tam_plugin.flops``, beside the paper's published figures."""

from tam_plugin.eval.flops.report import Conventions, describe, report
from tam_plugin.eval.flops.subjects import Subject, from_path, from_preset

__all__ = ["Conventions", "Subject", "describe", "from_path", "from_preset", "report"]
