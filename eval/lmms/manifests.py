"""What lmms-eval reads at start: names and class paths, nothing that takes time or memory to import."""

from __future__ import annotations

from typing import Any

from tam_plugin.patches.hosts import lmms_models


def manifests() -> list[Any]:
    """One ``ModelManifest`` per model; lmms-eval calls this through its entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=name, simple_class_path=model.class_path) for name, model in lmms_models().items()]
