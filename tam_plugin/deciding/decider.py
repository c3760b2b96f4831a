"""Decider: the one place where a question about a video gets its budget, its frames and its instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tam_plugin.budget import Policy, TokenLayout, VisualBudget
from tam_plugin.config import InstructionConfig
from tam_plugin.deciding.instruction import longest_lines
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.taxonomy import TaskDistribution

if TYPE_CHECKING:
    from tam_plugin.inductor import Inductor

MOST_ADAPTED = 64
"""Adapted policies that are kept: one for each length of text and answer."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a question about a video leads to.

    Attributes:
        query: the question; None where it was not asked for.
        duration_s: length of the video in seconds; None if it is not known.
        distribution: what the Inductor said; None where the policy does not read the question.
        policy: the policy that decided, adapted to the model and to the text beside the video.
        budget: frames and stride.
    """

    query: str | None
    duration_s: float | None
    distribution: TaskDistribution | None
    policy: Policy
    budget: VisualBudget


class Decider:
    """Decides frames and stride of questions for one model.

    Args:
        policy: the policy, in no model's layout yet.
        layout: the model's token layout; None takes the policy's own, whatever the text.
        instruction: the lines that the prompt will hold beside the question.
        inductor: name or folder of the Inductor (None for the embedded one), which is loaded when a question is first
            classified; or a loaded one.
        count_tokens: tokens of a prompt around the words given, without the video's; None reserves what the policy
            says, however long the text.

    Raises:
        ConfigError: the policy cannot be followed with the model.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        layout: TokenLayout | None = None,
        instruction: InstructionConfig | None = None,
        inductor: str | Inductor | None = None,
        count_tokens: Callable[[str], int] | None = None,
    ) -> None:
        self.policy = policy
        self.layout = layout
        self.instruction = instruction or InstructionConfig(time=False)
        self.inductor_name = inductor if isinstance(inductor, str) else None
        self._inductor = None if isinstance(inductor, str) else inductor
        self._is_given = self._inductor is not None
        self._count_tokens = count_tokens
        self._adapted: dict[tuple[int, int], Policy] = {}
        self.adapted(0, 0)

    @property
    def inductor(self) -> Inductor:
        """The Inductor, loaded.

        Raises:
            ConfigError: it cannot be read, whatever the question.
        """
        if self._inductor is None:
            from tam_plugin.inductor import Inductor

            try:
                self._inductor = Inductor.from_pretrained(self.inductor_name)
            except InputError as error:
                raise ConfigError(str(error)) from error
        return self._inductor

    def decide(
        self,
        query: str | None,
        duration_s: float | None,
        *,
        video_frames: int | None = None,
        options: Sequence[str] | None = None,
        text: str | None = None,
        output_tokens: int = 0,
    ) -> Decision:
        """The budget of a question.

        Args:
            query: the question; None only where the policy does not read it.
            duration_s: length of the video in seconds; None if it is not known.
            video_frames: frames that the video holds, if known.
            options: answer options, if the question has any.
            text: the words of the prompt that stay whatever the frames (question, options); None for the question.
            output_tokens: length of the answer, at most.

        Raises:
            InputError: the policy reads questions and there is none, a value is not valid for a video, or the text
                leaves no room for a frame.
            ConfigError: policy or Inductor cannot be used.
        """
        policy = self.policy_for(query or "" if text is None else text, output_tokens)
        distribution = None
        if query is not None:
            distribution = self.inductor.classify(query, duration_s=duration_s, options=options or None)
        elif policy.reads_question:
            raise InputError("there is no question to decide frames by: give one, or a fixed policy")
        budget = policy.budget(distribution, duration_s, video_frames=video_frames)
        return Decision(query=query, duration_s=duration_s, distribution=distribution, policy=policy, budget=budget)

    def adapted(self, text_tokens: int, output_tokens: int) -> Policy:
        """The policy for the model, with room for so many tokens of text and answer.

        Raises:
            ConfigError: the model cannot follow it, or not one frame fits.
        """
        layout, key = self.layout, (text_tokens, output_tokens)
        if layout is None:
            # Adapted to its own layout, since that also holds a policy to the frames of the video.
            layout, key = self.policy.layout, (0, 0)
        if key not in self._adapted:
            if len(self._adapted) >= MOST_ADAPTED:
                del self._adapted[next(iter(self._adapted))]
            self._adapted[key] = self.policy.adapted(layout, text_tokens=key[0], output_tokens=key[1])
        return self._adapted[key]

    def policy_for(self, text: str, output_tokens: int = 0) -> Policy:
        """The policy that leaves room for the text, the times of as many frames as it may take, and the answer.

        Args:
            text: the words of the prompt that stay whatever the frames.
            output_tokens: length of the answer, at most.

        Raises:
            InputError: text and answer leave no room for a frame.
        """
        if self._count_tokens is None:
            return self.adapted(0, output_tokens)
        extensions = self.inductor.extensions if self.instruction.task and self.policy.reads_question else ()
        lines = longest_lines(self.policy.max_frames, self.instruction, extensions)
        tokens = self._count_tokens("\n".join([*lines, text]))
        try:
            return self.adapted(tokens, output_tokens)
        except ConfigError as error:
            raise InputError(f"a text of {tokens} tokens and an answer of {output_tokens}: {error}") from error

    def __getstate__(self) -> dict[str, object]:
        """Without the Inductor that was loaded here: a worker process loads its own. One that was given goes along."""
        return {**self.__dict__, "_inductor": self._inductor if self._is_given else None}
