"""The row of transformers' LlavaOnevision classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import reason_of
from tam_plugin.installing import remedy_of
from tam_plugin.patches.hosts.host import Host, HostState, LmmsModel

if TYPE_CHECKING:
    from tam_plugin.checkpoint import TensorLayout
    from tam_plugin.patches.onevision import VideoAssistant

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
            return HostState(self.name, False, reason_of(error), remedy_of(error, "transformers"))
        if not found:
            remedy = "install transformers 4.57 or newer, in another environment than LLaVA-NeXT's if that pins its own"
            return HostState(self.name, False, f"transformers {version} is too old for LLaVA-OneVision", remedy)
        return HostState(self.name, True, f"LLaVA-OneVision of transformers {version}")

    def owns(self, config: Mapping[str, Any]) -> bool:
        """See :class:`Host`."""
        return config.get("model_type") in (DENSE_MODEL_TYPE, TAM_MODEL_TYPE)

    def tensor_layout(self, config: dict[str, Any], names: Iterable[str] | None, where: str) -> TensorLayout:
        """See :class:`Host`."""
        from tam_plugin.patches.onevision.checkpoint_layout import NAMES, tensor_layout_of

        return tensor_layout_of(config, NAMES if names is None else names, where)

    def assistant(self, name_or_path: str | None, **options: Any) -> VideoAssistant:
        """See :class:`Host`."""
        from tam_plugin.patches.onevision import VideoAssistant

        return VideoAssistant.from_pretrained(name_or_path, **options)
