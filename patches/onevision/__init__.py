"""TAM on the LlavaOnevision classes of transformers: subclasses, registered with the Auto classes; no patches.

Importing this package registers the model type ``tam_llava_onevision``.
"""

from tam_plugin.patches.onevision.assistant import Answer, VideoAssistant
from tam_plugin.patches.onevision.configuration import TamOnevisionConfig
from tam_plugin.patches.onevision.inputs import VideoTurn, build_inputs
from tam_plugin.patches.onevision.loading import load
from tam_plugin.patches.onevision.modeling import TamOnevisionForConditionalGeneration, TamOnevisionModel
from tam_plugin.patches.onevision.upgrade import upgrade_dense

__all__ = [
    "Answer",
    "TamOnevisionConfig",
    "TamOnevisionForConditionalGeneration",
    "TamOnevisionModel",
    "VideoAssistant",
    "VideoTurn",
    "build_inputs",
    "load",
    "upgrade_dense",
]
