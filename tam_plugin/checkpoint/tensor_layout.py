"""What the core must know of a host's checkpoint: a few names, the encoder's sizes, and how config.json changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tam_plugin.budget import TokenLayout
from tam_plugin.budget.stored import policy_to_store
from tam_plugin.config import TamConfig

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """Names and sizes of one checkpoint; a host subclasses it with what config.json becomes.

    Attributes:
        host: in words, for messages and the summary.
        where: the checkpoint, for messages.
        config: config.json as it is.
        encoder: start of the encoder's names, up to ``encoder.layers.0.…``.
        num_layers: encoder layers that the weights hold.
        vision: fields of ``SiglipVisionConfig`` (those of a ``tam.vision_encoder``).
        projector: start of the projector's names, up to the first name of its own.
        projector_linears: names of a two-layer projector's linear layers, in order.
        projector_type: a projector's layers, in LLaVA's words: ``linear``, or ``mlp2x_gelu`` for two.
        pooling_head: whether the configuration gives the encoder SigLIP's pooling head.
        language: the language model's fields of config.json.
        newline_position: see :class:`tam_plugin.budget.VisualBudget`.
        tam: configuration of a TAM checkpoint; None for a dense one.
        notes: what a person should know of how this was found.
    """

    host: str
    where: str
    config: dict[str, Any]
    encoder: str
    num_layers: int
    vision: dict[str, Any]
    projector: str
    projector_linears: tuple[str, ...]
    language: dict[str, Any]
    projector_type: str
    pooling_head: bool
    newline_position: str
    tam: TamConfig | None = None
    notes: tuple[str, ...] = ()

    def mlp(self, layer: int) -> str:
        """Start of the names of one encoder layer's MLP."""
        return f"{self.encoder}encoder.layers.{layer}.mlp."

    def token_layout(self, tam: TamConfig | None = None) -> TokenLayout:
        """How the model lays out a video's tokens.

        Args:
            tam: what a dense checkpoint becomes. None takes the checkpoint as it is: a dense one has one projector,
                which serves every stride.

        Raises:
            InputError: the newline position is unknown.
        """
        chosen = tam or self.tam or self.complete(TamConfig(), pool_mode_given=False)
        layout = TokenLayout.of_projector(
            chosen.projector,
            grid=self.vision["image_size"] // self.vision["patch_size"],
            newline_position=self.newline_position,
            context_tokens=self.language.get("max_position_embeddings"),
        )
        return layout if tam or self.tam else layout.replace(strides=None)

    def complete(self, tam: TamConfig, *, pool_mode_given: bool) -> TamConfig:
        """The configuration that the host's own upgrade in memory stores for what was asked.

        As asked, with the policy itself in place of a file's name; a host may add to it.

        Args:
            tam: what was asked.
            pool_mode_given: whether somebody chose ``projector.pool_mode``.
        """
        return tam.replace(policy=policy_to_store(tam.policy))

    def tam_config(self, tam: TamConfig) -> dict[str, Any]:
        """config.json of the TAM checkpoint that a dense one becomes."""
        raise NotImplementedError

    def remembered(self) -> dict[str, Any]:
        """The part of a dense config.json that the TAM one loses; the journal keeps it for converting back."""
        raise NotImplementedError

    def dense_config(self, remembered: dict[str, Any] | None, vision_tower: str | None) -> dict[str, Any]:
        """config.json of the dense checkpoint that a TAM one becomes.

        Args:
            remembered: :meth:`remembered` of the dense checkpoint, where there is a journal.
            vision_tower: the dense tower's name, as the user gives it.

        Raises:
            ConfigError: the tower's name is needed and cannot be known.
        """
        raise NotImplementedError

    def check(self, shapes: Shapes, tam: TamConfig) -> None:
        """Compare the tensors of a TAM checkpoint with those that ``tam`` makes.

        Raises:
            ConfigError: by name.
        """
        raise NotImplementedError
