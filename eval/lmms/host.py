"""What both hosts do for an evaluation, and the rows that pass between them and lmms-eval's requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tam_plugin.budget import Policy, TokenLayout, VisualBudget
from tam_plugin.config import InstructionConfig

if TYPE_CHECKING:
    import torch

    from tam_plugin.video import SampledVideo

DEFAULT_NEW_TOKENS = 1024
"""Answer length of tasks that do not say theirs, as the baseline has it."""


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
    """What a host computed for a row.

    Attributes:
        text: the answer; empty for a scored continuation.
        prompt_tokens: tokens of the whole prompt, visual ones included.
        visual_tokens: tokens of the video.
        output_tokens: tokens generated or scored.
        loss: mean negative log-likelihood of the continuation, in nats a token.
        is_greedy: whether greedy decoding would have written the continuation.
    """

    text: str = ""
    prompt_tokens: int
    visual_tokens: int
    output_tokens: int
    loss: float | None = None
    is_greedy: bool | None = None


class Host(Protocol):
    """A loaded model."""

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


def sampling_options(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``generate`` from a task's ``generation_kwargs``, read as the baseline reads them.

    It takes four of them: ``max_new_tokens``, ``temperature`` (greedy at 0, whatever ``do_sample`` says), ``top_p`` and
    ``num_beams``; ``until`` is left to the end-of-turn token.
    """
    temperature = generation.get("temperature") or 0
    options: dict[str, Any] = {
        "max_new_tokens": int(generation.get("max_new_tokens", DEFAULT_NEW_TOKENS)),
        "num_beams": int(generation.get("num_beams") or 1),
        "do_sample": temperature > 0,
    }
    if temperature > 0:
        options.update(temperature=float(temperature), top_p=generation.get("top_p"))
    return options


def written(ids: Sequence[int], ends: Sequence[int]) -> int:
    """Tokens of a generated row up to and including the first that ends it."""
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return stop + 1
