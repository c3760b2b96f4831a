"""Task-aware video language models: the question decides the frames, their resolution and the experts.

Importing this package is light: torch and transformers are imported by the part that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "TaskType": "tam_plugin.taxonomy",
    "TaskDistribution": "tam_plugin.taxonomy",
    "Sensitivity": "tam_plugin.taxonomy",
    "TamConfig": "tam_plugin.config",
    "TamError": "tam_plugin.errors",
    "Inductor": "tam_plugin.inductor",
    "BudgetPolicy": "tam_plugin.budget",
    "VisualBudget": "tam_plugin.budget",
    "plan": "tam_plugin.planning",
    "probe_video": "tam_plugin.video",
    "sample_frames": "tam_plugin.video",
    "SampledVideo": "tam_plugin.video",
    "VideoInfo": "tam_plugin.video",
    "upcycle_vision_encoder": "tam_plugin.vision",
    "install": "tam_plugin.patches",
    "installed": "tam_plugin.patches",
    "status": "tam_plugin.patches",
    "uninstall": "tam_plugin.patches",
}

__all__ = [
    "BudgetPolicy",
    "Inductor",
    "SampledVideo",
    "Sensitivity",
    "TamConfig",
    "TamError",
    "TaskDistribution",
    "TaskType",
    "VideoInfo",
    "VisualBudget",
    "__version__",
    "install",
    "installed",
    "plan",
    "probe_video",
    "sample_frames",
    "status",
    "uninstall",
    "upcycle_vision_encoder",
]

if TYPE_CHECKING:
    from tam_plugin.budget import BudgetPolicy, VisualBudget
    from tam_plugin.config import TamConfig
    from tam_plugin.errors import TamError
    from tam_plugin.inductor import Inductor
    from tam_plugin.patches import install, installed, status, uninstall
    from tam_plugin.planning import plan
    from tam_plugin.taxonomy import Sensitivity, TaskDistribution, TaskType
    from tam_plugin.video import SampledVideo, VideoInfo, probe_video, sample_frames
    from tam_plugin.vision import upcycle_vision_encoder


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'tam_plugin' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
