"""What lmms-eval reads at start: names and class paths, nothing that takes time or memory to import."""

from __future__ import annotations

from typing import Any

CLASS_PATHS = {
    "tallva": "tam_plugin.eval.lmms.llava_next.Tallva",
    "tallva_onevision": "tam_plugin.eval.lmms.onevision.TallvaOnevision",
}
"""Model names of ``lmms_eval --model`` and their classes."""


def manifests() -> list[Any]:
    """One ``ModelManifest`` a model; lmms-eval calls this through its entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [ModelManifest(model_id=name, simple_class_path=path) for name, path in CLASS_PATHS.items()]
