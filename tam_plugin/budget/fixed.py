"""The baseline behind the policy's interface: one budget for every question and every video."""

from __future__ import annotations

from typing import Any

from tam_plugin.bounds import MAX_FRAMES, MAX_STRIDE, is_whole
from tam_plugin.budget.layout import HOST_STRIDE, TokenLayout
from tam_plugin.budget.protocol import Policy, check_scale, check_stride, labelled
from tam_plugin.budget.visual_budget import VisualBudget, check_video_frames
from tam_plugin.config import short
from tam_plugin.errors import ConfigError
from tam_plugin.taxonomy import TaskDistribution, check_duration_s

BASELINE_FRAMES, BASELINE_STRIDE = 64, HOST_STRIDE
"""What the hosts give every question and every video (the paper's baseline)."""

KIND = "fixed"
"""The name of this policy, in ``fixed:FRAMES:STRIDE`` and in the mapping of a checkpoint."""


class FixedPolicy(Policy):
    """The same budget always: the hosts' own behaviour.

    Args:
        num_frames: frames of every video, at most.
        pool_stride: pooling stride of every frame.
        layout: the token layout.

    Raises:
        InputError: a value is out of range.
    """

    reads_question = False

    def __init__(
        self,
        num_frames: int = BASELINE_FRAMES,
        pool_stride: int = BASELINE_STRIDE,
        layout: TokenLayout = TokenLayout(),  # noqa: B008 - frozen
    ) -> None:
        self.layout = layout
        self._budget = layout.budget(num_frames, pool_stride)

    @classmethod
    def from_text(cls, text: str) -> FixedPolicy:
        """The policy of ``FRAMES:STRIDE``.

        Raises:
            ConfigError: it is another text.
        """
        numbers = text.split(":")
        if len(numbers) != 2 or not all(part.isdecimal() and part.isascii() and len(part) < 10 for part in numbers):
            raise _bad(text)
        return cls.from_dict({"num_frames": int(numbers[0]), "pool_stride": int(numbers[1])})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FixedPolicy:
        """The policy of :meth:`to_dict`'s mapping, whose ``kind`` may be left out.

        Raises:
            ConfigError: a field is missing, unknown or out of range.
        """
        if {*values} - {"kind"} != {"num_frames", "pool_stride"}:
            raise ConfigError(f"policy {short(values)}: expected kind: {KIND}, num_frames and pool_stride")
        frames, stride = values["num_frames"], values["pool_stride"]
        if not is_whole(frames, 1, MAX_FRAMES) or not is_whole(stride, 1, MAX_STRIDE):
            raise _bad(f"{frames}:{stride}")
        return cls(frames, stride)

    @property
    def max_frames(self) -> int:
        """Frames of every video, at most."""
        return self._budget.num_frames

    def to_dict(self) -> dict[str, Any]:
        """Frames and stride, as a checkpoint may store them."""
        return {"kind": KIND, "num_frames": self._budget.num_frames, "pool_stride": self._budget.pool_stride}

    def adapted(self, layout: TokenLayout, *, text_tokens: int = 0, output_tokens: int = 0) -> FixedPolicy:
        """A copy that counts tokens as ``layout`` does; a baseline is not cut to fit a context.

        Raises:
            ConfigError: the model has no projector for its stride.
        """
        check_stride(self._budget.pool_stride, layout)
        return FixedPolicy(self._budget.num_frames, self._budget.pool_stride, layout)

    def capped(self, max_frames: int) -> FixedPolicy:
        """A copy with at most ``max_frames`` frames."""
        return FixedPolicy(min(max_frames, self.max_frames), self._budget.pool_stride, self.layout)

    def scaled(self, scale: float) -> FixedPolicy:
        """A copy of ``scale`` times the frames."""
        check_scale(scale)
        return FixedPolicy(max(1, round(self.max_frames * scale)), self._budget.pool_stride, self.layout)

    def budget(
        self,
        distribution: TaskDistribution | None = None,
        duration_s: float | None = None,
        *,
        video_frames: int | None = None,
    ) -> VisualBudget:
        """The fixed budget; ``distribution`` only labels it, ``video_frames`` bounds it.

        Raises:
            InputError: ``duration_s`` is 0, negative or not finite, or ``video_frames`` is under 1.
        """
        check_duration_s(duration_s)
        check_video_frames(video_frames)
        budget = self._budget
        if video_frames is not None and video_frames < budget.num_frames:
            budget = self.layout.changed(budget, num_frames=video_frames)
        return budget if distribution is None else labelled(budget, distribution)


def _bad(text: str) -> ConfigError:
    return ConfigError(
        f"policy '{KIND}:{text}': expected {KIND}:FRAMES:STRIDE, such as {KIND}:{BASELINE_FRAMES}:{BASELINE_STRIDE}, "
        f"with 1 to {MAX_FRAMES} frames and a stride from 1 to {MAX_STRIDE}"
    )
