"""The row of transformers' LlavaOnevision classes."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import reason_of
from tam_plugin.installing import remedy_of
from tam_plugin.patches.hosts.host import Host, HostState, LmmsModel

if TYPE_CHECKING:
    from tam_plugin.checkpoint import TensorLayout

ROOM = "tam_plugin.patches.onevision"
"""What the row names and does not import: the room's own files read the row."""

DENSE_MODEL_TYPE = "llava_onevision"
TAM_MODEL_TYPE = "tam_llava_onevision"


class Onevision(Host):
    """transformers' LlavaOnevision classes."""

    name = "onevision"
    label = "LlavaOnevision"
    checkpoints = "a LlavaOnevision checkpoint of transformers"
    lmms_model = LmmsModel(
        name="tallva_onevision",
        class_path="tam_plugin.eval.lmms.onevision.TallvaOnevision",
        upgrades_dense=True,
    )

    def probe(self) -> HostState:
        """See :class:`Host`; transformers is imported to see."""
        try:
            import transformers

            version = transformers.__version__
            found = hasattr(transformers, "LlavaOnevisionModel")
        except Exception as error:  # whatever stands beside transformers and is broken
            reason = reason_of(error)
            return HostState(self.name, False, reason, remedy_of(error, "transformers", reason))
        if not found:
            remedy = "install transformers 4.57 or newer, in another environment than LLaVA-NeXT's if that pins its own"
            return HostState(self.name, False, f"transformers {version} is too old for LLaVA-OneVision", remedy)
        return HostState(self.name, True, f"LLaVA-OneVision of transformers {version}")

    def owns(self, config: Mapping[str, Any]) -> bool:
        """See :class:`Host`."""
        return config.get("model_type") in (DENSE_MODEL_TYPE, TAM_MODEL_TYPE)

    def tensor_layout(self, config: dict[str, Any], names: Iterable[str] | None, where: str) -> TensorLayout:
        """See :class:`Host`."""
        layout = importlib.import_module(f"{ROOM}.tensor_layout")
        return layout.tensor_layout_of(config, layout.NAMES if names is None else names, where)

    def assistant(self, name_or_path: str | None, **options: Any) -> Any:
        """See :class:`Host`."""
        return importlib.import_module(ROOM).VideoAssistant.from_pretrained(name_or_path, **options)
