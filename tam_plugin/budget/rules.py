"""The policy's data: frame rules per group, context arithmetic, and the checks that a YAML file must pass."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tam_plugin.bounds import MAX_CURVE_POINTS, MAX_STRIDE, MAX_STRIDES, MAX_TOKENS, is_whole
from tam_plugin.budget.fixed import BASELINE_FRAMES, BASELINE_STRIDE
from tam_plugin.budget.layout import NEWLINE_POSITIONS, TokenLayout
from tam_plugin.config import short
from tam_plugin.errors import ConfigError
from tam_plugin.taxonomy import TaskExtension, TaskType

Curve = tuple[tuple[float, float], ...]
"""Points ``(duration_s, frames)``, ascending in both."""


def interpolate(curve: Curve, duration_s: float) -> float:
    """Value of ``curve`` at ``duration_s``: straight lines between its points, constant outside."""
    at = bisect.bisect_right([x for x, _ in curve], duration_s)
    if at == 0:
        return curve[0][1]
    if at == len(curve):
        return curve[-1][1]
    (x0, y0), (x1, y1) = curve[at - 1], curve[at]
    return y0 + (y1 - y0) * (duration_s - x0) / (x1 - x0)


@dataclass(frozen=True, kw_only=True)
class GroupRule:
    """What one sensitivity group asks for.

    Attributes:
        frames_per_second: target sampling rate.
        strides: pooling strides it may take, ascending (finest first).
        min_frames: lower bound as a curve over duration.
        max_frames: upper bound as a curve over duration.
    """

    frames_per_second: float
    strides: tuple[int, ...]
    min_frames: Curve
    max_frames: Curve

    def frames(self, duration_s: float) -> int:
        """Frames asked for at ``duration_s``; non-decreasing in it because all three terms are."""
        wanted = min(self.frames_per_second * duration_s, interpolate(self.max_frames, duration_s))
        return max(1, math.floor(max(wanted, interpolate(self.min_frames, duration_s)) + 0.5))


@dataclass(frozen=True, kw_only=True)
class Context:
    """The LLM's context, what of it the video may take (Tab. 8), and how the video's tokens are counted."""

    max_context_tokens: int
    max_output_tokens: int
    text_reserve_tokens: int
    layout: TokenLayout

    @property
    def visual_tokens(self) -> int:
        """Tokens left for the video: max context − max output − text reserve."""
        return self.max_context_tokens - self.max_output_tokens - self.text_reserve_tokens

    def capacity(self, stride: int) -> int:
        """The most frames that fit at ``stride``."""
        return self.layout.frames_within(self.visual_tokens, stride)

    def within(self, max_tokens: int | None) -> dict[str, int]:
        """The changes for a model that keeps ``max_tokens`` of a sequence: all of the context shrinks in proportion."""
        if max_tokens is None or max_tokens >= self.max_context_tokens:
            return {}
        share = max_tokens / self.max_context_tokens
        return {
            "max_context_tokens": max_tokens,
            "max_output_tokens": int(self.max_output_tokens * share),
            "text_reserve_tokens": int(self.text_reserve_tokens * share),
        }


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """When the plain rule is not followed, and what is done instead (Sec. 4.4).

    Under ``min_confidence`` the soft expectation is taken, but never more tokens than the baseline's; under
    ``baseline_confidence``, where nothing is known of the question, the baseline's frames and stride.
    """

    min_confidence: float
    baseline_confidence: float
    baseline_frames: int
    baseline_stride: int
    unknown_duration_s: float
    shortest_s: float
    longest_s: float
    assumed_fps: float


class Fields:
    """Reads typed fields out of a mapping; every refusal names the field, its value and what was expected."""

    def __init__(self, values: Any, where: str, fields: set[str]) -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"{where} = {short(values)}: expected a mapping")
        for key in values:
            if key not in fields:
                raise ConfigError(f"{where}: unknown field {short(key)}; expected one of {', '.join(sorted(fields))}")
        self.values, self.where = values, where

    def _get(self, name: str, ok: Callable[[Any], bool], expected: str) -> Any:
        if name not in self.values:
            raise ConfigError(f"{self.where}.{name} is missing: expected {expected}")
        value = self.values[name]
        if not ok(value):
            raise ConfigError(f"{self.where}.{name} = {short(value)}: expected {expected}")
        return value

    def whole(self, name: str, low: int, high: int = MAX_TOKENS) -> int:
        span = f"a whole number >= {low}" if high == MAX_TOKENS else f"a whole number from {low} to {high}"
        return self._get(name, lambda v: is_whole(v, low, high), span)

    def number(self, name: str, low: float, high: float = math.inf) -> float:
        span = f"a number from {low:g} to {high:g}" if math.isfinite(high) else f"a number >= {low:g}"
        return float(self._get(name, lambda v: _is_number(v) and low <= v <= high, span))

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        return self._get(name, lambda v: v in choices, "one of " + ", ".join(choices))

    def strides(self, name: str) -> tuple[int, ...]:
        def ok(v: Any) -> bool:
            if not isinstance(v, list) or not 1 <= len(v) <= MAX_STRIDES:
                return False
            return all(is_whole(s, 1, MAX_STRIDE) for s in v) and v == sorted(set(v))

        return tuple(self._get(name, ok, "ascending whole numbers >= 1, such as [1, 2]"))

    def curve(self, name: str) -> Curve:
        def ok(v: Any) -> bool:
            if not isinstance(v, list) or not 1 <= len(v) <= MAX_CURVE_POINTS:
                return False
            if not all(isinstance(p, list) and len(p) == 2 and all(map(_is_number, p)) for p in v):
                return False
            xs, ys = [p[0] for p in v], [p[1] for p in v]
            return xs[0] >= 0 and ys[0] >= 1 and xs == sorted(set(xs)) and ys == sorted(ys)

        points = self._get(name, ok, "points [duration_s, frames], durations ascending and frames (>= 1) never falling")
        return tuple((float(x), float(y)) for x, y in points)


def read_group(values: Any, where: str) -> GroupRule:
    """A :class:`GroupRule` from its mapping; refuses a minimum above the maximum at any duration."""
    fields = Fields(values, where, {"frames_per_second", "strides", "min_frames", "max_frames"})
    rule = GroupRule(
        frames_per_second=fields.number("frames_per_second", 0.0),
        strides=fields.strides("strides"),
        min_frames=fields.curve("min_frames"),
        max_frames=fields.curve("max_frames"),
    )
    for x, _ in rule.min_frames + rule.max_frames:
        low, high = interpolate(rule.min_frames, x), interpolate(rule.max_frames, x)
        if low > high:
            raise ConfigError(f"{where}: min_frames is {low:g} at {x:g} s, above max_frames, {high:g}")
    return rule


def read_extension(extension: TaskExtension, groups: dict[str, GroupRule]) -> GroupRule:
    """The rule that an extension's questions follow: its own, or that of the group it names.

    Raises:
        ConfigError: there is no such group, or a field of its own rule is missing, unknown or out of range.
    """
    where = f"task type {extension.label!r}"
    if extension.rule is not None:
        return read_group(dict(extension.rule), f"{where}, policy")
    if extension.group not in groups:
        raise ConfigError(f"{where} needs group {short(extension.group)}; groups holds {', '.join(groups)}")
    return groups[extension.group]


def read_context(values: Any, grid: int, pool_mode: str) -> Context:
    """A :class:`Context` from its mapping."""
    fields = Fields(
        values, "context", {"max_context_tokens", "max_output_tokens", "text_reserve_tokens", "newline_position"}
    )
    newline_position = fields.choice("newline_position", NEWLINE_POSITIONS)
    return Context(
        max_context_tokens=fields.whole("max_context_tokens", 1),
        max_output_tokens=fields.whole("max_output_tokens", 0),
        text_reserve_tokens=fields.whole("text_reserve_tokens", 0),
        layout=TokenLayout(grid=grid, pool_mode=pool_mode, newline_position=newline_position),
    )


def read_fallback(values: Any) -> Fallback:
    """A :class:`Fallback` from its mapping."""
    baseline = {
        "baseline_confidence": 0.2,
        "baseline_frames": BASELINE_FRAMES,
        "baseline_stride": BASELINE_STRIDE,
    }
    names = {"min_confidence", "unknown_duration_s", "shortest_s", "longest_s", "assumed_fps", *baseline}
    # Policies that were written before there was a baseline take the default one.
    fields = Fields({**baseline, **values} if isinstance(values, dict) else values, "fallback", names)
    shortest_s = fields.number("shortest_s", 0.0)
    return Fallback(
        min_confidence=fields.number("min_confidence", 0.0, 1.0),
        baseline_confidence=fields.number("baseline_confidence", 0.0, 1.0),
        baseline_frames=fields.whole("baseline_frames", 1),
        baseline_stride=fields.whole("baseline_stride", 1),
        unknown_duration_s=fields.number("unknown_duration_s", 0.1),
        shortest_s=shortest_s,
        longest_s=fields.number("longest_s", shortest_s),
        assumed_fps=fields.number("assumed_fps", 0.1),
    )


def read_tasks(values: Any, groups: dict[str, GroupRule]) -> dict[TaskType, str]:
    """Group name of every task type: the mapping's, else that of the task's sensitivity."""
    if not isinstance(values, dict):
        raise ConfigError(f"tasks = {short(values)}: expected a mapping of task label to group name")
    given = {TaskType.from_label(label): group for label, group in values.items()}
    by_task = {task: given.get(task, task.sensitivity.value) for task in TaskType}
    for task, group in by_task.items():
        if not isinstance(group, str) or group not in groups:
            raise ConfigError(f"task {task.label!r} needs group {short(group)}; groups holds {', '.join(groups)}")
    return by_task


def _is_number(value: Any) -> bool:
    # The bound keeps arithmetic on frames and seconds far from overflow; NaN fails it too.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e9
