"""TokenLayout: how a model lays out a video's tokens, and the only place where they are counted (App. D.2)."""

from __future__ import annotations

import bisect
import dataclasses
import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from tam_plugin.bounds import MAX_FRAMES
from tam_plugin.budget.reducers import reducer_named
from tam_plugin.budget.visual_budget import VisualBudget
from tam_plugin.config import POOL_MODES, ProjectorConfig
from tam_plugin.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIGLIP_GRID = 27
"""Patches per side of SigLIP-so400m-patch14-384: floor(384 / 14)."""

HOST_STRIDE = 2
"""The pooling stride that the hosts give every video."""

NEWLINE_POSITIONS = ("grid", "frame", "one_token", "no_token")
"""The hosts' ``mm_newline_position``: one newline token per row, per frame, per video, or none."""


@dataclass(frozen=True, kw_only=True)
class TokenLayout:
    """The properties of a checkpoint, whatever its host, that decide how many tokens a video takes.

    Attributes:
        grid: patches per side of a frame.
        pool_mode: how a frame's grid is pooled: ``bilinear`` rounds its side up, ``average`` and ``max`` round down.
        newline_position: one of :data:`NEWLINE_POSITIONS`.
        strides: pooling strides that the model has projectors for, ascending; None for any.
        context_tokens: what the model or its host keeps of a sequence, text and visual tokens together; None if that
            is not known.
        reducer: name of the token reducer after the projector (:func:`tam_plugin.budget.register_reducer`), or None.

    Raises:
        InputError: a value is out of range.
    """

    grid: int = SIGLIP_GRID
    pool_mode: str = "bilinear"
    newline_position: str = "grid"
    strides: tuple[int, ...] | None = None
    context_tokens: int | None = None
    reducer: str | None = None

    def __post_init__(self) -> None:
        _check_whole("grid", self.grid)
        if self.pool_mode not in POOL_MODES:
            raise InputError(f"pool_mode = {self.pool_mode!r}: expected one of {', '.join(POOL_MODES)}")
        if self.newline_position not in NEWLINE_POSITIONS:
            raise InputError(
                f"newline position {self.newline_position!r}: expected one of {', '.join(NEWLINE_POSITIONS)}"
            )
        if self.context_tokens is not None:
            _check_whole("context_tokens", self.context_tokens)
        if self.reducer is not None:
            reducer_named(self.reducer)

    @classmethod
    def of_projector(
        cls, projector: ProjectorConfig, *, grid: int, newline_position: str, context_tokens: int | None = None
    ) -> TokenLayout:
        """The layout of a TAM model.

        Args:
            projector: its strides, pooling and token reducer.
            grid: patches per side of its encoder.
            newline_position: one of :data:`NEWLINE_POSITIONS`.
            context_tokens: see the class.
        """
        return cls(
            grid=grid,
            pool_mode=projector.pool_mode,
            newline_position=newline_position,
            strides=projector.strides,
            context_tokens=context_tokens,
            reducer=projector.reducer,
        )

    def replace(self, **changes: Any) -> TokenLayout:
        """A copy with some of the attributes changed."""
        return dataclasses.replace(self, **changes)

    @overload
    def side(self, stride: int) -> int: ...
    @overload
    def side(self, stride: NDArray[np.integer[Any]]) -> NDArray[np.int64]: ...
    def side(self, stride: Any) -> Any:
        """Tokens per side of a frame after pooling: ``ceil(grid / stride)`` if bilinear, else the floor."""
        return -(-self.grid // stride) if self.pool_mode == "bilinear" else self.grid // stride

    @overload
    def count(self, num_frames: int, stride: int) -> int: ...
    @overload
    def count(self, num_frames: NDArray[np.integer[Any]], stride: NDArray[np.integer[Any]]) -> NDArray[np.int64]: ...
    def count(self, num_frames: Any, stride: Any) -> Any:
        """Tokens of a video of ``num_frames`` frames at ``stride``, newline tokens included.

        Args:
            num_frames: frames, or an array ``[N]`` of them, of 64 bits where large.
            stride: pooling stride, or an array ``[N]``.
        """
        if not isinstance(num_frames, (int, numbers.Integral)):
            import numpy as np

            num_frames, stride = np.asarray(num_frames, np.int64), np.asarray(stride, np.int64)
            if self.reducer is not None:  # it is asked about numbers
                return np.vectorize(self.count, otypes=[np.int64])(num_frames, stride)
            rows = self.side(stride)
            return self._with_newlines(num_frames, rows * rows, rows)
        rows = self.side(stride)
        frames, per_frame = num_frames, rows * rows
        if self.reducer is not None:
            frames, per_frame = reducer_named(self.reducer).shape(int(num_frames), int(per_frame))
            rows = self._rows(per_frame)
        return self._with_newlines(frames, per_frame, rows)

    def _with_newlines(self, frames: Any, per_frame: Any, rows: Any) -> Any:
        if self.newline_position == "grid":
            return frames * (per_frame + rows)
        if self.newline_position == "frame":
            return frames * (per_frame + 1)
        return frames * per_frame + (self.newline_position == "one_token")

    def _rows(self, per_frame: int) -> int:
        """Rows of a frame of which a token reducer leaves so many tokens."""
        rows = math.isqrt(per_frame)
        if self.newline_position == "grid" and rows * rows != per_frame:
            raise InputError(
                f"token reducer {self.reducer!r} leaves {per_frame} tokens per frame: newline position grid, which "
                "ends each row of a frame with a token, needs a square number"
            )
        return rows

    def frames_within(self, tokens: int, stride: int) -> int:
        """The most frames at ``stride`` whose tokens are at most ``tokens``; 0 if not one fits.

        A token reducer's count need not grow evenly, and may stop growing: then the answer is :data:`MAX_FRAMES`.
        """
        if self.reducer is not None:
            counts = range(1, MAX_FRAMES + 1)
            return bisect.bisect_right(counts, tokens, key=lambda num_frames: self.count(num_frames, stride))
        fixed = self.count(0, stride)
        per_frame = self.count(1, stride) - fixed
        return max(0, (tokens - fixed) // per_frame) if per_frame else 0

    def budget(self, num_frames: int, pool_stride: int, **decision: Any) -> VisualBudget:
        """A budget of ``num_frames`` frames at ``pool_stride`` with its tokens worked out.

        Args:
            num_frames: frames, T.
            pool_stride: pooling stride of each of them.
            **decision: any of :class:`VisualBudget`'s ``task``, ``confidence``, ``fallback`` and ``extension_task``.

        Raises:
            InputError: a value is not a whole number >= 1, or pooling leaves nothing of a frame.
        """
        _check_whole("num_frames", num_frames)
        _check_whole("pool_stride", pool_stride)
        num_frames, pool_stride = int(num_frames), int(pool_stride)
        side = self.side(pool_stride)
        if side < 1:
            raise InputError(f"pool_stride = {pool_stride}: {self.pool_mode} pooling leaves nothing of {self.grid}")
        return VisualBudget(
            num_frames=num_frames,
            pool_stride=pool_stride,
            tokens_per_frame=side * side,
            visual_tokens=self.count(num_frames, pool_stride),
            **decision,
        )

    def changed(
        self, budget: VisualBudget, num_frames: int | None = None, pool_stride: int | None = None, reason: str = ""
    ) -> VisualBudget:
        """``budget`` with other frames or another stride, counted in this layout.

        Args:
            budget: its task, confidence and extension are kept.
            num_frames: None keeps the budget's.
            pool_stride: None keeps the budget's.
            reason: added to its ``fallback``.
        """
        frames = budget.num_frames if num_frames is None else num_frames
        stride = budget.pool_stride if pool_stride is None else pool_stride
        counted = self.budget(frames, stride)
        return dataclasses.replace(
            budget,
            num_frames=counted.num_frames,
            pool_stride=counted.pool_stride,
            tokens_per_frame=counted.tokens_per_frame,
            visual_tokens=counted.visual_tokens,
            fallback="; ".join(filter(None, (budget.fallback, reason))) or None,
        )

    def fit(
        self,
        budget: VisualBudget,
        text_tokens: int,
        *,
        tokens_per_time: int = 0,
        strides: Sequence[int] | None = None,
    ) -> VisualBudget:
        """``budget``, reduced until it fits beside its text: first to a coarser stride, then to fewer frames.

        Args:
            budget: the question's budget.
            text_tokens: tokens of the text, and of the answer that must fit too, whatever the frames.
            tokens_per_time: tokens of the time instruction for each frame, at most.
            strides: strides that it may be moved to; None for the model's.

        Raises:
            InputError: the text leaves no room for one frame.
        """
        limit = self.context_tokens

        def fits(num_frames: int, stride: int) -> bool:
            tokens = self.count(num_frames, stride) + text_tokens + tokens_per_time * num_frames
            return limit is None or tokens <= limit

        if fits(budget.num_frames, budget.pool_stride):
            return budget
        reason = f"{text_tokens} tokens of text beside a video in a context of {limit}"
        coarser = sorted(s for s in (strides or self.strides or ()) if s > budget.pool_stride)
        for stride in (budget.pool_stride, *coarser):
            if fits(budget.num_frames, stride):
                return self.changed(budget, pool_stride=stride, reason=reason)
        stride = coarser[-1] if coarser else budget.pool_stride
        fewer = next((n for n in range(budget.num_frames - 1, 0, -1) if fits(n, stride)), None)
        if fewer is None:
            raise InputError(f"{reason}: not one frame fits; shorten the text, or allow a longer context")
        return self.changed(budget, fewer, stride, reason)

    def to_dict(self) -> dict[str, Any]:
        """What decides the count for a given budget, as plain values."""
        values = {"grid": self.grid, "pool_mode": self.pool_mode, "newline_position": self.newline_position}
        return values if self.reducer is None else {**values, "reducer": self.reducer}


def _check_whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"{name} = {value!r}: expected a whole number >= 1")
