"""BudgetPolicy: task distribution × duration → visual budget (Sec. 3.2, App. A.2; fallbacks of Sec. 4.4).

Routing is by task type and length, not by a fixed table of eight combinations: frames follow curves over
the duration, and the resolution is what the context leaves for that many frames.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tam_plugin.bounds import MAX_FRAMES, MAX_GRID, MAX_GROUPS
from tam_plugin.budget.choice import Choice, fit, kept_strides, no_more
from tam_plugin.budget.fixed import BASELINE_FRAMES, BASELINE_STRIDE, FixedPolicy
from tam_plugin.budget.layout import TokenLayout
from tam_plugin.budget.protocol import Policy, check_scale
from tam_plugin.budget.rules import (
    Context,
    Fallback,
    Fields,
    GroupRule,
    read_context,
    read_extension,
    read_fallback,
    read_group,
    read_tasks,
)
from tam_plugin.budget.visual_budget import VisualBudget, check_video_frames
from tam_plugin.config import POOL_MODES, short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_yaml
from tam_plugin.taxonomy import TaskDistribution, TaskExtension, TaskType, check_duration_s

POLICY_VERSION = 1
DEFAULT_POLICY = Path(__file__).with_name("default_policy.yaml")
MODES = ("hard", "soft")


class BudgetPolicy(Policy):
    """Maps the Inductor's prediction and the video's length to a :class:`VisualBudget`.

    Build one with :meth:`from_yaml`, :meth:`from_dict` or :meth:`fixed`. The default policy takes those of its strides
    that a model has; any other policy must find all of its strides in the model.
    """

    def __init__(
        self,
        *,
        mode: str,
        context: Context,
        max_frames: int,
        fallback: Fallback,
        groups: dict[str, GroupRule],
        tasks: dict[TaskType, str],
        source: dict[str, Any],
    ) -> None:
        self.mode = mode
        self.context = context
        self.layout = context.layout
        self.visual_tokens = context.visual_tokens
        self.fallback = fallback
        self.groups = groups
        self.tasks = tasks
        self._max_frames = max_frames
        self._source = source
        self._is_default = False
        self._wanted = {name: rule.strides for name, rule in groups.items()}  # before :meth:`adapted` left some out
        for name, rule in groups.items():
            self._check_capacity(rule, f"groups.{name}")

    @classmethod
    def from_yaml(cls, path: str | Path | None = None) -> BudgetPolicy:
        """Read a policy file; None reads the default policy.

        Raises:
            ConfigError: the file cannot be read, or a field is missing, unknown or out of range.
        """
        try:
            policy = cls.from_dict(read_yaml(DEFAULT_POLICY if path is None else path, what="budget policy"))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
        policy._is_default = path is None
        return policy

    @classmethod
    def from_dict(cls, values: Any, *, layout: TokenLayout | None = None) -> BudgetPolicy:
        """Build a policy from the mapping that the YAML file holds.

        Args:
            values: the mapping.
            layout: the token layout to count in; None takes the mapping's own.

        Raises:
            ConfigError: a field is missing, unknown or out of range; the message names it.
        """
        names = {"version", "mode", "context", "grid", "pool_mode", "max_frames", "fallback", "groups", "tasks"}
        fields = Fields(values, "budget policy", names)
        if fields.whole("version", 1) != POLICY_VERSION:
            raise ConfigError(f"budget policy.version = {short(values['version'])}: expected {POLICY_VERSION}")
        mode = fields.choice("mode", MODES)
        raw_groups = values.get("groups")
        if not isinstance(raw_groups, dict) or not 1 <= len(raw_groups) <= MAX_GROUPS:
            raise ConfigError(f"groups = {short(raw_groups)}: expected a mapping of 1 to {MAX_GROUPS} names to rules")
        groups = {str(name): read_group(rule, f"groups.{name}") for name, rule in raw_groups.items()}
        try:
            tasks = read_tasks({} if values.get("tasks") is None else values["tasks"], groups)
        except InputError as error:
            raise ConfigError(f"tasks: {error}") from error
        grid, pool_mode = fields.whole("grid", 1, MAX_GRID), fields.choice("pool_mode", POOL_MODES)
        context = read_context(values.get("context"), grid, pool_mode)
        return cls(
            mode=mode,
            context=context if layout is None else dataclasses.replace(context, layout=layout),
            max_frames=fields.whole("max_frames", 1, MAX_FRAMES),
            fallback=read_fallback(values.get("fallback")),
            groups=groups,
            tasks=tasks,
            source=values,
        )

    @classmethod
    def fixed(
        cls,
        num_frames: int = BASELINE_FRAMES,
        pool_stride: int = BASELINE_STRIDE,
        layout: TokenLayout = TokenLayout(),  # noqa: B008 - frozen
    ) -> FixedPolicy:
        """The baseline: the same frames and stride for every question and every video (:class:`FixedPolicy`)."""
        return FixedPolicy(num_frames, pool_stride, layout)

    @property
    def max_frames(self) -> int:
        """The most frames that it gives any video."""
        return self._max_frames

    def to_dict(self) -> dict[str, Any]:
        """The mapping that this policy was built from; a checkpoint stores it."""
        return self._source

    def adapted(self, layout: TokenLayout, *, text_tokens: int = 0, output_tokens: int = 0) -> BudgetPolicy:
        """A copy for a model: its token layout, its strides, and its context, which shrinks in proportion.

        Args:
            layout: the model's.
            text_tokens: tokens to reserve for the text, if more than the policy's own reserve (or its share).
            output_tokens: tokens to reserve for the answer, likewise.

        Raises:
            ConfigError: a group has strides that the model has no projector for (of the default policy: none that it
                has), or not one frame fits.
        """
        changes = self.context.within(layout.context_tokens)
        for name, needed in (("text_reserve_tokens", text_tokens), ("max_output_tokens", output_tokens)):
            changes[name] = max(changes.get(name, getattr(self.context, name)), needed)
        groups = {name: dict(rule) for name, rule in self._source["groups"].items()}
        if layout.strides is not None:
            for name, rule in groups.items():
                rule["strides"] = kept_strides(
                    rule["strides"], layout.strides, f"groups.{name}", all_of_them=not self._is_default
                )
        values = {
            **self._source,
            "context": {**self._source["context"], **changes, "newline_position": layout.newline_position},
            "groups": groups,
            "grid": layout.grid,
            "pool_mode": layout.pool_mode,
        }
        return self._copy(values, layout)

    def capped(self, max_frames: int) -> BudgetPolicy:
        """A copy with at most ``max_frames`` frames for any video."""
        values = {**self._source, "max_frames": min(self.max_frames, max_frames)}
        return self._copy(values, self.layout)

    def scaled(self, scale: float) -> BudgetPolicy:
        """A copy of ``scale`` times the frames, whose visual tokens may be ``scale`` times as many."""
        check_scale(scale)
        values = copy.deepcopy(self._source)
        for rule in values["groups"].values():
            rule["frames_per_second"] *= scale
            for curve in ("min_frames", "max_frames"):
                rule[curve] = [[x, max(1.0, y * scale)] for x, y in rule[curve]]
        values["max_frames"] = max(1, round(values["max_frames"] * scale))
        reserved = self.context.max_output_tokens + self.context.text_reserve_tokens
        values["context"]["max_context_tokens"] = reserved + max(1, round(self.context.visual_tokens * scale))
        return self._copy(values, self.layout)

    def strides_of(self, budget: VisualBudget) -> Sequence[int] | None:
        """Strides that the rule behind one of its budgets may take."""
        if budget.extension_task is not None:
            return self.extension_rule(budget.extension_task).strides
        if budget.task is None:
            return None
        return self.groups[self.tasks[budget.task]].strides

    def _copy(self, values: dict[str, Any], layout: TokenLayout) -> BudgetPolicy:
        policy = type(self).from_dict(values, layout=layout)
        policy._is_default, policy._wanted = self._is_default, self._wanted
        return policy

    def extension_rule(self, extension: TaskExtension) -> GroupRule:
        """The rule that decides for a task type beyond the eight: its own, or that of the group it names.

        Raises:
            ConfigError: no such group, a field of its rule is wrong, none of its strides is one of the model's, or not
                one frame fits.
        """
        rule = read_extension(extension, self.groups)
        where = f"task type {extension.label!r}, policy"
        if self.layout.strides is not None:
            kept = kept_strides(rule.strides, self.layout.strides, where, all_of_them=False)
            rule = dataclasses.replace(rule, strides=tuple(kept))
        self._check_capacity(rule, where)
        return rule

    def budget(
        self, distribution: TaskDistribution | None, duration_s: float | None, *, video_frames: int | None = None
    ) -> VisualBudget:
        """Decide frames and stride.

        Where the Inductor found a task type beyond the eight, that type's rule decides, whatever the mode and the
        confidence.

        Args:
            distribution: what the Inductor says of the question.
            duration_s: length of the video in seconds; None if it is not known.
            video_frames: frames that the video holds, if known; the budget never exceeds them.

        Raises:
            InputError: ``duration_s`` is 0, negative or not finite, ``video_frames`` is under 1, or there is no
                distribution.
            ConfigError: the rule of a task type beyond the eight cannot be followed (:meth:`extension_rule`).
        """
        check_duration_s(duration_s)
        check_video_frames(video_frames)
        if distribution is None:
            raise InputError("this policy decides by the question: expected what the Inductor says of it")
        planned_s, reasons = self._planned_duration(duration_s)
        most = min(self.max_frames, self._available_frames(duration_s, video_frames))
        extension = distribution.extension
        if extension is not None:
            choice = self._by_rule(
                self.extension_rule(extension), read_extension(extension, self.groups).strides, planned_s, most
            )
        else:
            choice = self._by_distribution(distribution, planned_s, most, reasons)
        if choice.cut:
            reasons.append(choice.cut)
        return self.layout.budget(
            choice.num_frames,
            choice.stride,
            task=distribution.task,
            confidence=distribution.decided_confidence,
            fallback="; ".join(reasons) or None,
            extension_task=extension,
        )

    def _check_capacity(self, rule: GroupRule, where: str) -> None:
        if self.context.capacity(rule.strides[-1]) < 1:
            raise ConfigError(
                f"{where}.strides = {list(rule.strides)}: not one frame fits the {self.context.visual_tokens} "
                f"visual tokens that context leaves; allow a coarser stride or raise max_context_tokens"
            )

    def _planned_duration(self, duration_s: float | None) -> tuple[float, list[str]]:
        rule = self.fallback
        if duration_s is None:
            return rule.unknown_duration_s, [f"duration is not known: planned for {rule.unknown_duration_s:g} s"]
        planned_s = min(max(duration_s, rule.shortest_s), rule.longest_s)
        if planned_s == duration_s:
            return planned_s, []
        side = "under" if duration_s < planned_s else "over"
        return planned_s, [f"duration {duration_s:g} s is {side} {planned_s:g} s: planned for {planned_s:g} s"]

    def _available_frames(self, duration_s: float | None, video_frames: int | None) -> int:
        if video_frames is not None:
            return video_frames
        if duration_s is None:
            return self.max_frames
        return max(1, math.floor(duration_s * self.fallback.assumed_fps))

    def _by_distribution(
        self, distribution: TaskDistribution, planned_s: float, most: int, reasons: list[str]
    ) -> Choice:
        """The choice for one of the eight task types; what the Inductor doubts is added to ``reasons``.

        Doubt never buys more tokens than the baseline has.
        """
        floor = self.fallback
        if distribution.confidence < floor.baseline_confidence:
            why = (
                distribution.doubt or f"confidence {distribution.confidence:.3f} is under {floor.baseline_confidence:g}"
            )
            reasons.append(f"{why}: the baseline's budget taken")
            return self._baseline(most)
        if distribution.confidence >= floor.min_confidence:
            decide = self._expected if self.mode == "soft" else self._of_likeliest
            return decide(distribution, planned_s, most)
        reasons.append(
            f"confidence {distribution.confidence:.3f} is under {floor.min_confidence:g}: "
            "expectation over all task types taken"
        )
        return no_more(
            self._expected(distribution, planned_s, most), self._baseline(most), self._strides(), self.context
        )

    def _baseline(self, most: int) -> Choice:
        """The baseline's frames at the finest stride that is not finer than its own, and fits."""
        strides = self._strides()
        coarse = tuple(s for s in strides if s >= self.fallback.baseline_stride) or (strides[-1],)
        return fit(min(self.fallback.baseline_frames, most), coarse, self.context)

    def _strides(self) -> tuple[int, ...]:
        """Every stride that a task type's group allows, finest first."""
        return tuple(sorted({s for group in self.tasks.values() for s in self.groups[group].strides}))

    def _by_rule(self, rule: GroupRule, wanted: tuple[int, ...], duration_s: float, most: int) -> Choice:
        """The choice of a rule, with the reason where it would have taken a stride that the model does not have."""
        frames = min(rule.frames(duration_s), most)
        choice = fit(frames, rule.strides, self.context)
        if wanted != rule.strides and (free := fit(frames, wanted, self.context)).stride != choice.stride:
            missing = f"the model has no projector for stride {free.stride}: stride {choice.stride} taken"
            return dataclasses.replace(choice, cut="; ".join(filter(None, (missing, choice.cut))))
        return choice

    def _of(self, task: TaskType, duration_s: float, most: int) -> Choice:
        group = self.tasks[task]
        return self._by_rule(self.groups[group], self._wanted[group], duration_s, most)

    def _of_likeliest(self, distribution: TaskDistribution, duration_s: float, most: int) -> Choice:
        return self._of(distribution.task, duration_s, most)

    def _expected(self, distribution: TaskDistribution, duration_s: float, most: int) -> Choice:
        """Expected frames, and the stride whose grid side is nearest to the expected one and fits."""
        choices = [self._of(task, duration_s, most) for task in TaskType]
        weighted = list(zip(distribution.probabilities, choices, strict=True))
        frames = max(1, math.floor(sum(p * c.num_frames for p, c in weighted) + 0.5))
        side = sum(p * self.layout.side(c.stride) for p, c in weighted)
        strides = self._strides()
        nearest = min(strides, key=lambda s: (abs(self.layout.side(s) - side), -s))
        return fit(frames, tuple(s for s in strides if s >= nearest), self.context)
