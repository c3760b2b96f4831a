"""The eight task types of the paper (Tab. 7), their sensitivity groups (App. A.2), and a distribution over them.

This is the only place that knows names, order and definitions; everything else reads them from here. An Inductor may
know task types beyond the eight (:class:`TaskExtension`, Tab. 12). Whatever names a question's task type takes an
:data:`AnyTask` and reads its ``index``, ``label`` and ``description``, which both kinds have.
"""

from __future__ import annotations

import enum
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tam_plugin.errors import InputError


class Sensitivity(str, enum.Enum):
    """What a task type gains from: finer frames, more frames, or some of both (App. A.2)."""

    RESOLUTION = "resolution"
    BALANCED = "balanced"
    FRAMES = "frames"


class TaskType(enum.Enum):
    """The eight video understanding task types, in the paper's order.

    Each member's value is its 1-based index; ``label``, ``description`` and ``sensitivity`` say the rest.
    """

    STATIC_ATTRIBUTES = 1
    ACTION_RECOGNITION = 2
    FINE_GRAINED_ATTRIBUTES = 3
    TEMPORAL_SEQUENCE = 4
    SPATIAL_ORIENTATION = 5
    SUMMARY = 6
    REASONING = 7
    OCR_CROSS_MODAL = 8

    @property
    def index(self) -> int:
        """1-based index in paper order."""
        return self.value

    @property
    def label(self) -> str:
        """The paper's name of the task type."""
        return _LABELS[self.value - 1]

    @property
    def description(self) -> str:
        """What belongs to the task type, in one or two sentences."""
        return _DESCRIPTIONS[self.value - 1]

    @property
    def sensitivity(self) -> Sensitivity:
        """The sensitivity group that decides the kind of visual budget."""
        return _SENSITIVITY[self.value - 1]

    @classmethod
    def from_label(cls, label: str | int) -> TaskType:
        """Find a task type by its label, member name or 1-based index (case and ``-_`` are ignored).

        Raises:
            InputError: nothing matches; the message lists the labels.
        """
        key = _normalise(str(label))
        for task in cls:
            if key in (_normalise(task.label), _normalise(task.name), str(task.value)):
                return task
        raise InputError(f"unknown task type {label!r}; expected 1-8 or one of: {', '.join(_LABELS)}")


def _normalise(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


_LABELS = (
    "Static Attributes Recognition",
    "Action Recognition",
    "Fine-grained Attributes Recognition",
    "Temporal Sequence Positioning",
    "Spatial Orientation and Navigation",
    "Summary and Generalization",
    "Reasoning and Logic",
    "OCR and Cross-modal Alignment",
)

_DESCRIPTIONS = (
    "Static attributes of people or objects that can be seen at a glance (color, quantity, state, material) "
    "and whether something is there, including finding and counting objects.",
    "Dynamic events, actions and interactions, except facial expressions, and the way in which an action is done.",
    "Attributes that take interpretation: poses, emotions, facial expressions and attitudes, often helped by "
    "subtitles or dialogue.",
    "Order and timing of events, causal order, durations, and how many times something happens within the video.",
    "Positions, places, directions, spatial relations and routes through an environment.",
    "The whole video in brief: narrative structure, themes, main topic, or advice that follows from its content.",
    "Causes, motives, purposes, predictions, and relationships between people or things.",
    "Text on the screen, and the alignment of what is seen with subtitles or speech.",
)

_SENSITIVITY = (
    Sensitivity.RESOLUTION,
    Sensitivity.BALANCED,
    Sensitivity.BALANCED,
    Sensitivity.FRAMES,
    Sensitivity.RESOLUTION,
    Sensitivity.FRAMES,
    Sensitivity.BALANCED,
    Sensitivity.RESOLUTION,
)

NUM_TASK_TYPES = len(TaskType)

SHORT_VIDEO_MAX_S = 30.0
"""Videos under this length are "short" in the paper's analysis (Sec. 4.6)."""
LONG_VIDEO_MIN_S = 180.0
"""Videos over this length are "long" in the paper's analysis (Sec. 4.6)."""


def length_class(duration_s: float) -> str:
    """``"short"`` (< 30 s), ``"medium"`` or ``"long"`` (> 180 s), as in the paper's routing analysis (Fig. 7)."""
    if duration_s < SHORT_VIDEO_MAX_S:
        return "short"
    return "long" if duration_s > LONG_VIDEO_MIN_S else "medium"


LONGEST_DURATION_S = 1e9
"""No video is longer: about thirty years."""


def check_duration_s(duration_s: float | None) -> None:
    """Refuse a duration that no video has.

    Raises:
        InputError: ``duration_s`` is 0, negative, NaN or infinite (None means "not known" and passes).
    """
    if duration_s is None:
        return
    number = isinstance(duration_s, numbers.Real) and not isinstance(duration_s, bool)
    if not number or not 0 < duration_s <= LONGEST_DURATION_S:
        raise InputError(f"duration_s = {duration_s!r}: expected seconds > 0, or None if it is not known")


@dataclass(frozen=True, kw_only=True)
class TaskExtension:
    """A task type beyond the eight, that an Inductor was extended by, and how the policy is to treat it (Tab. 12).

    Attributes:
        label: its name.
        description: what belongs to it, in a sentence.
        group: the policy group whose rule it takes; None if it brings a rule.
        rule: a rule of its own, as a group of the policy file has it; None if it takes a group's. The policy checks it.
        index: its number after the eight, from 9, in the order of the Inductor's labels beyond the eight; the number
            by which files of labelled rows name it.

    Raises:
        InputError: no label, not exactly one of ``group`` and ``rule``, or an index that is not a whole number > 8.
    """

    label: str
    description: str = ""
    group: str | None = None
    rule: Mapping[str, Any] | None = field(default=None, hash=False)
    index: int = NUM_TASK_TYPES + 1

    def __post_init__(self) -> None:
        if not isinstance(self.label, str) or not self.label.strip() or len(self.label.splitlines()) > 1:
            raise InputError(f"an extension's label must be one line of text, got {self.label!r}")
        where = f"extension {self.label!r}"
        if not isinstance(self.description, str):
            raise InputError(f"{where}: description must be text, got {self.description!r}")
        if (self.group is None) == (self.rule is None):
            raise InputError(f"{where}: expected either a group or a rule, got {self.group!r} and {self.rule!r}")
        if self.rule is None and not isinstance(self.group, str):
            raise InputError(f"{where}: group must be the name of a policy group, got {self.group!r}")
        if self.rule is not None and not isinstance(self.rule, Mapping):
            raise InputError(f"{where}: rule must be a mapping, got {self.rule!r}")
        if isinstance(self.index, bool) or not isinstance(self.index, int) or self.index <= NUM_TASK_TYPES:
            raise InputError(f"{where}: index must be a whole number > {NUM_TASK_TYPES}, got {self.index!r}")


AnyTask: TypeAlias = TaskType | TaskExtension
"""A task type of either kind; both have ``index``, ``label`` and ``description``."""


@dataclass(frozen=True)
class TaskDistribution:
    """Probabilities over task types: what the Inductor says of one query.

    Attributes:
        probabilities: one float per task type in paper order, each in [0, 1], summing to 1.
        extension: the task type beyond the eight that an extended Inductor considers more probable than each of them;
            usually None. ``probabilities`` are those of the eight in either case.
        extension_probability: probability of ``extension`` among the eight and every extension of the Inductor; not
            read without an extension.
        doubt: why the Inductor says nothing of this query, so that ``probabilities`` are all alike; usually None.

    Raises:
        InputError: wrong length, a value outside [0, 1], or a sum that is not 1 within 1e-3.
    """

    probabilities: tuple[float, ...]
    extension: TaskExtension | None = None
    extension_probability: float = 1.0
    doubt: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        values = tuple(float(p) for p in self.probabilities)
        if len(values) != NUM_TASK_TYPES:
            raise InputError(f"a task distribution has {NUM_TASK_TYPES} probabilities, got {len(values)}")
        if not all(math.isfinite(p) and 0.0 <= p <= 1.0 + 1e-6 for p in values):
            raise InputError(f"task probabilities must lie in [0, 1], got {values}")
        if abs(sum(values) - 1.0) > 1e-3:
            raise InputError(f"task probabilities must sum to 1, got {sum(values):.4f}")
        if self.extension is not None and not isinstance(self.extension, TaskExtension):
            raise InputError(f"extension must be a TaskExtension or None, got {self.extension!r}")
        if not 0.0 <= self.extension_probability <= 1.0 + 1e-6:
            raise InputError(f"extension_probability must lie in [0, 1], got {self.extension_probability!r}")
        object.__setattr__(self, "probabilities", values)

    @property
    def task(self) -> TaskType:
        """The most probable of the eight task types (the first one on a tie)."""
        return TaskType(self.probabilities.index(max(self.probabilities)) + 1)

    @property
    def confidence(self) -> float:
        """Probability of :attr:`task` among the eight."""
        return max(self.probabilities)

    @property
    def decided_task(self) -> AnyTask:
        """The task type that decides what is done: the extension where there is one, else :attr:`task`."""
        return self.task if self.extension is None else self.extension

    @property
    def decided_confidence(self) -> float:
        """Probability of :attr:`decided_task`."""
        return self.confidence if self.extension is None else self.extension_probability

    @classmethod
    def one_hot(cls, task: AnyTask | str | int) -> TaskDistribution:
        """The distribution that is certain of ``task`` (a task type of either kind, or label or index of one of the
        eight); for an extension, ``probabilities`` are all alike.
        """
        if isinstance(task, TaskExtension):
            return cls((1 / NUM_TASK_TYPES,) * NUM_TASK_TYPES, task)
        member = task if isinstance(task, TaskType) else TaskType.from_label(task)
        return cls(tuple(1.0 if t is member else 0.0 for t in TaskType))

    @classmethod
    def unknown(cls, doubt: str) -> TaskDistribution:
        """The distribution that says nothing: every task type alike, with the reason."""
        return cls((1 / NUM_TASK_TYPES,) * NUM_TASK_TYPES, doubt=doubt)

    @classmethod
    def from_logits(cls, logits: Sequence[float]) -> TaskDistribution:
        """Softmax of ``logits`` (one per task type), in float64."""
        peak = max(logits)
        weights = [math.exp(float(x) - peak) for x in logits]
        return cls(tuple(w / sum(weights) for w in weights))

    def as_dict(self) -> dict[str, float]:
        """Label → probability, in paper order; the values sum to 1.

        Where an extension decides, it comes last, and the eight share what it leaves. An extension that does not decide
        has no entry: its probability counts with those of the eight.
        """
        rest = 1.0 if self.extension is None else 1.0 - self.extension_probability
        found = {task.label: rest * p for task, p in zip(TaskType, self.probabilities, strict=True)}
        return found if self.extension is None else {**found, self.extension.label: self.extension_probability}
