"""Configuration of a TAM model on the OneVision host: the host's own, plus the ``tam`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, LlavaOnevisionConfig

from tam_plugin.budget import TokenLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.hosts.onevision import TAM_MODEL_TYPE

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NEWLINE_POSITION = "one_token"
"""Where this host puts newline tokens: one at the end of a video. A checkpoint that says otherwise is followed."""


class TamOnevisionConfig(LlavaOnevisionConfig):
    """``LlavaOnevisionConfig`` with a ``tam`` mapping (:meth:`TamConfig.to_dict`) and the place of newline tokens.

    The model type is its own, so that transformers without this plugin refuses a TAM checkpoint by name
    instead of loading it as a dense model with random experts left out.
    """

    model_type = TAM_MODEL_TYPE
    tam: dict[str, Any] | None = None
    newline_position: str = NEWLINE_POSITION
    if TYPE_CHECKING:  # a caller may give mappings; this is what becomes of them
        vision_config: PretrainedConfig
        text_config: PretrainedConfig

    @property
    def tam_config(self) -> TamConfig:
        """The ``tam`` section, checked.

        Raises:
            ConfigError: there is none, as in the configuration of a dense checkpoint, or it is bad.
        """
        if self.tam is None:
            raise ConfigError(
                "this configuration has no 'tam' section: a dense checkpoint becomes a TAM model by load() or "
                "upgrade_dense(), not by from_pretrained of a TAM class"
            )
        return TamConfig.from_dict(self.tam)

    @property
    def token_layout(self) -> TokenLayout:
        """How this model lays out a video's tokens.

        Raises:
            ConfigError: ``newline_position`` is unknown.
        """
        vision = self.vision_config
        try:
            return TokenLayout.of_projector(
                self.tam_config.projector,
                grid=vision.image_size // vision.patch_size,
                newline_position=self.newline_position,
                context_tokens=getattr(self.text_config, "max_position_embeddings", None),
            )
        except InputError as error:
            raise ConfigError(f"config.json: {error}") from error


AutoConfig.register(TamOnevisionConfig.model_type, TamOnevisionConfig, exist_ok=True)
