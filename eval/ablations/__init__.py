"""The paper's ablations as settings: every row of Tab. 3, 9, 10 and 11 by name (``ablation=tab10_lowest``)."""

from tam_plugin.eval.ablations.applying import apply_to_model, configured, controlled
from tam_plugin.eval.ablations.rows import ROWS, Ablation, find

__all__ = ["ROWS", "Ablation", "apply_to_model", "configured", "controlled", "find"]
