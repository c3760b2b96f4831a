"""Loaded models: what an evaluation asks of one, and what ``tam ask`` asks of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from tam_plugin.budget import Policy, TokenLayout, VisualBudget
    from tam_plugin.config import InstructionConfig, TamConfig
    from tam_plugin.deciding import Decider
    from tam_plugin.video import SampledVideo


@dataclass(frozen=True)
class Answer:
    """What a model said to a question about one video.

    Attributes:
        text: the answer.
        prompt_tokens: tokens of the whole prompt, visual ones included.
        visual_tokens: tokens of the video.
        prompt: the prompt as the model read it; one mark stands for all visual tokens.
    """

    text: str
    prompt_tokens: int
    visual_tokens: int
    prompt: str


class Assistant(Protocol):
    """A loaded model that answers questions about sampled videos, one at a time."""

    @property
    def notice(self) -> str | None:
        """What a user must know about the weights."""

    @property
    def tam_config(self) -> TamConfig:
        """The configuration of the TAM model."""

    @property
    def vision_tower(self) -> torch.nn.Module:
        """The encoder, for :func:`tam_plugin.vision.collect_routing` to listen to."""

    def decider(self, policy: Policy | None = None, inductor: str | None = None) -> Decider:
        """What decides frames and stride of questions to this model; None takes the checkpoint's own."""

    def answer(
        self,
        video: SampledVideo,
        query: str,
        budget: VisualBudget,
        *,
        options: Sequence[str] | None = None,
        max_new_tokens: int = 128,
    ) -> Answer:
        """Greedy answer to ``query`` about the frames of ``video``.

        Raises:
            InputError: the budget cannot be followed, or prompt and answer exceed the model's context.
        """


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a batch.

    Attributes:
        turn: the user's turn: instruction and the request's text.
        video: the frames.
        budget: frames and stride.
        continuation: what is to be scored; None where an answer is generated.
    """

    turn: str
    video: SampledVideo
    budget: VisualBudget
    continuation: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a loaded model computed for a row.

    Attributes:
        text: the answer; empty for a scored continuation.
        prompt_tokens: tokens of the whole prompt, visual ones included.
        visual_tokens: tokens of the video.
        output_tokens: tokens generated or scored.
        loss: mean negative log-likelihood of the continuation, in nats per token.
        is_greedy: whether greedy decoding would have written the continuation.
    """

    text: str = ""
    prompt_tokens: int
    visual_tokens: int
    output_tokens: int
    loss: float | None = None
    is_greedy: bool | None = None


class HostModel(Protocol):
    """A checkpoint loaded on its host, as an evaluation computes with it: rows in batches, answered or scored."""

    @property
    def model(self) -> torch.nn.Module:
        """The whole model."""

    device: torch.device
    layout: TokenLayout
    instruction: InstructionConfig
    policy: Policy | None
    """The checkpoint's own; None if it has none."""
    inductor: str | None
    tower: torch.nn.Module
    """The vision encoder."""
    weights: tuple[str | None, ...]
    """Folders or names that the weights came from."""

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole prompt around a user's turn, without the video's."""

    def generate(self, rows: Sequence[Row], options: Mapping[str, Any]) -> list[Answered]:
        """Answers to a batch."""

    def score(self, rows: Sequence[Row]) -> list[Answered]:
        """Losses of a batch's continuations."""
