"""Configuration of a TAM model on the OneVision host: the host's own, plus the ``tam`` section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, LlavaOnevisionConfig

from tam_plugin.budget import BudgetPolicy, FixedPolicy, newline_tokens, pooled_side
from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

NEWLINE_POSITION = "one_token"
"""This host ends a video with one newline token."""


class TamOnevisionConfig(LlavaOnevisionConfig):
    """``LlavaOnevisionConfig`` with a ``tam`` mapping (:meth:`TamConfig.to_dict`).

    The model type is its own, so that transformers without this plugin refuses a TAM checkpoint by name
    instead of loading it as a dense model with random experts left out.
    """

    model_type = "tam_llava_onevision"
    tam: dict[str, Any] | None = None
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
    def grid(self) -> int:
        """Patches a side of the vision encoder."""
        return self.vision_config.image_size // self.vision_config.patch_size

    def video_tokens(self, num_frames: int, stride: int) -> int:
        """Tokens of one video on this host: pooled patches of every frame and one newline at the end."""
        side = pooled_side(stride, self.grid, self.tam_config.projector.pool_mode)
        return num_frames * side * side + newline_tokens(num_frames, side, NEWLINE_POSITION)

    @property
    def context_tokens(self) -> int | None:
        """Tokens that the language model reads at most, if its configuration says."""
        return getattr(self.text_config, "max_position_embeddings", None)

    def host_policy(
        self,
        policy: BudgetPolicy | FixedPolicy | None = None,
        *,
        text_tokens: int = 0,
        max_output_tokens: int | None = None,
    ) -> BudgetPolicy | FixedPolicy:
        """``policy`` (default: the checkpoint's) with this model's grid, strides, newline layout and context.

        Args:
            policy: the policy to adapt.
            text_tokens: tokens of the prompt's words; more than the policy's reserve enlarges it.
            max_output_tokens: length of the answer; None keeps the policy's.

        Raises:
            ConfigError: the policy is bad, asks for strides this model has no projector for, or the context cannot
                hold a single frame.
        """
        policy = policy or stored_policy(self.tam_config.policy)
        projector = self.tam_config.projector
        changes: dict[str, Any] = {
            "grid": self.grid,
            "pool_mode": projector.pool_mode,
            "newline_position": NEWLINE_POSITION,
        }
        if isinstance(policy, BudgetPolicy):
            context = policy.context
            changes["max_context_tokens"] = min(context.max_context_tokens, self.context_tokens or 10**9)
            changes["text_reserve_tokens"] = max(context.text_reserve_tokens, text_tokens)
            if max_output_tokens is not None:
                changes["max_output_tokens"] = max_output_tokens
        return policy.for_strides(projector.strides).for_host(**changes)


AutoConfig.register(TamOnevisionConfig.model_type, TamOnevisionConfig, exist_ok=True)
