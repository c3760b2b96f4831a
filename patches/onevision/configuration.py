"""Configuration of a TAM model on the OneVision host: the host's own, plus the ``tam`` section."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, LlavaOnevisionConfig

from tam_plugin.budget import BudgetPolicy, FixedPolicy, newline_tokens, pooled_side
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError

NEWLINE_POSITION = "one_token"
"""This host ends a video with one newline token."""


class TamOnevisionConfig(LlavaOnevisionConfig):
    """``LlavaOnevisionConfig`` with a ``tam`` mapping (:meth:`TamConfig.to_dict`).

    The model type is its own, so that transformers without this plugin refuses a TAM checkpoint by name
    instead of loading it as a dense model with random experts left out.
    """

    model_type = "tam_llava_onevision"
    tam: dict[str, Any] | None = None

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
    def grid(self) -> int:
        """Patches a side of the vision encoder."""
        return self.vision_config.image_size // self.vision_config.patch_size

    def video_tokens(self, num_frames: int, stride: int) -> int:
        """Tokens of one video on this host: pooled patches of every frame and one newline at the end."""
        side = pooled_side(stride, self.grid, self.tam_config.projector.pool_mode)
        return num_frames * side * side + newline_tokens(num_frames, side, NEWLINE_POSITION)

    def host_policy(self, policy: BudgetPolicy | FixedPolicy | None = None) -> BudgetPolicy | FixedPolicy:
        """``policy`` (default: the checkpoint's) with this model's grid, newline layout and context length.

        Raises:
            ConfigError: the policy is bad, or this model's context cannot hold a single frame.
        """
        policy = policy or BudgetPolicy.from_config(self.tam_config.policy)
        changes: dict[str, Any] = {
            "grid": self.grid,
            "pool_mode": self.tam_config.projector.pool_mode,
            "newline_position": NEWLINE_POSITION,
        }
        if isinstance(policy, BudgetPolicy):
            longest = getattr(self.text_config, "max_position_embeddings", None)
            limit = policy.context.max_context_tokens
            changes["max_context_tokens"] = min(limit, longest) if longest else limit
        return policy.for_host(**changes)


AutoConfig.register(TamOnevisionConfig.model_type, TamOnevisionConfig, exist_ok=True)
