"""One chunk of samples: classified in batches, its budgets decided."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tam_plugin.budget import FixedPolicy, Policy
from tam_plugin.errors import InputError
from tam_plugin.inductor.text import MAX_QUERY_CHARS, QueryTruncatedWarning
from tam_plugin.plans import bad_rows
from tam_plugin.plans.bad_rows import BadRow, row_digest
from tam_plugin.plans.journal import Chunk
from tam_plugin.plans.probing import Probe
from tam_plugin.plans.rows import Sample
from tam_plugin.plans.table import DEFERRED, FALLBACK, GIVEN, LENGTH_CLASSES, PLAN, PROBED, UNKNOWN, UNREADABLE
from tam_plugin.taxonomy import LONG_VIDEO_MIN_S, SHORT_VIDEO_MAX_S, TaskDistribution, length_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tam_plugin.inductor import Inductor
    from tam_plugin.inductor.parallel import Workers

_CLASS_DURATIONS_S = {
    "short": SHORT_VIDEO_MAX_S / 2,
    "medium": (SHORT_VIDEO_MAX_S + LONG_VIDEO_MIN_S) / 2,
    "long": LONG_VIDEO_MIN_S * 2,
}


class Planner:
    """Plans samples by an Inductor and a policy.

    Args:
        inductor: classifies.
        policy: decides, already in the host's layout.
        batch_size: questions per forward pass.
        workers: run forward passes side by side; their number changes no plan.

    Raises:
        ConfigError: the policy allows more than the table holds.

    Attributes:
        extensions: the Inductor's task types beyond the eight.
    """

    def __init__(self, inductor: Inductor, policy: Policy, batch_size: int, workers: Workers) -> None:
        self._inductor, self._policy = inductor, policy
        self._batch_size, self._workers = batch_size, workers
        # An Inductor that reads no durations answers all classes of length alike: asked once.
        self._reads_duration = inductor.use_duration
        self._classes = LENGTH_CLASSES if inductor.use_duration else (None,) * len(LENGTH_CLASSES)
        self.extensions = inductor.extensions
        self._labels = [extension.label for extension in inductor.extensions]
        self._baseline = FixedPolicy(layout=policy.layout)  # what plans are compared with

    def chunk(
        self, rows: int, samples: Sequence[Sample], probes: Sequence[Probe] | None, bad: Sequence[BadRow] = ()
    ) -> Chunk:
        """Plan samples.

        Args:
            rows: rows of the data that they were found in.
            samples: what to plan.
            probes: what each video's header says; None when no video was opened.
            bad: those of the rows that cannot be planned.
        """
        probes = probes or [Probe()] * len(samples)
        durations = [p.duration_s or s.duration_s for s, p in zip(samples, probes, strict=True)]
        answers = self._classified(samples, durations)
        chunk = Chunk(rows, np.zeros(len(samples), PLAN), bad=list(bad))
        deferred = []
        for place, (sample, probe, duration_s) in enumerate(zip(samples, probes, durations, strict=True)):
            answer = answers[sample.question, self._kind(duration_s)]
            chunk.plans[place] = self._plan(sample, probe, duration_s, answer)
            chunk.baseline_tokens += self._baseline.budget(video_frames=probe.num_frames).visual_tokens
            chunk.truncated += len(sample.question.strip()) > MAX_QUERY_CHARS
            chunk.bad_durations += sample.bad_duration
            if duration_s is None:
                deferred.append(self._deferred(sample, [answers[sample.question, kind] for kind in self._classes]))
            if probe.error:
                digest = row_digest(sample.content)
                chunk.bad.append(
                    BadRow(sample.row, sample.where, sample.video, probe.error, bad_rows.UNREADABLE, digest)
                )
        chunk.bad.sort()
        chunk.deferred = np.array(deferred, DEFERRED)
        return chunk

    def _classified(
        self, samples: Sequence[Sample], durations: Sequence[float | None]
    ) -> dict[tuple[str, str | None], TaskDistribution]:
        """The Inductor's answer by question and length class, each asked once: data ask the same of many videos."""
        asked: dict[tuple[str, str | None], None] = {}
        for sample, duration_s in zip(samples, durations, strict=True):
            kinds = (self._kind(duration_s), *(self._classes if duration_s is None else ()))
            asked.update(dict.fromkeys((sample.question, kind) for kind in kinds))
        questions = [question for question, _ in asked]
        seconds = [_CLASS_DURATIONS_S[kind] if kind else None for _, kind in asked]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QueryTruncatedWarning)  # counted in the report
            found = self._inductor.classify_batch(
                questions, seconds, batch_size=self._batch_size, workers=self._workers
            )
        return dict(zip(asked, found, strict=True))

    def _kind(self, duration_s: float | None) -> str | None:
        return None if duration_s is None or not self._reads_duration else length_class(duration_s)

    def _plan(
        self, sample: Sample, probe: Probe, duration_s: float | None, answer: TaskDistribution
    ) -> tuple[Any, ...]:
        budget = self._policy.budget(answer, duration_s, video_frames=probe.num_frames)
        known = PROBED if probe.duration_s else GIVEN
        flags = UNKNOWN if duration_s is None else known
        flags |= (UNREADABLE if probe.error else 0) | (FALLBACK if budget.fallback else 0)
        values = {
            "key": sample.key.key,
            "check": sample.key.check,
            "row": sample.row,
            "duration": np.nan if duration_s is None else duration_s,
            "frames": budget.num_frames,
            "confidence": budget.confidence,
            "stride": budget.pool_stride,
            "task": answer.task.index,
            "extension": self._place(answer),
            "flags": flags,
        }
        return tuple(values[name] for name in PLAN.names or ())

    def _deferred(self, sample: Sample, answers: Sequence[TaskDistribution]) -> tuple[Any, ...]:
        values = {
            "key": sample.key.key,
            "probabilities": [a.probabilities for a in answers],
            "extension_probability": [a.extension_probability if a.extension else 0.0 for a in answers],
            "extension": [self._place(a) for a in answers],
        }
        return tuple(values[name] for name in DEFERRED.names or ())

    def _place(self, answer: TaskDistribution) -> int:
        return 0 if answer.extension is None else 1 + self._labels.index(answer.extension.label)


class Merged(NamedTuple):
    """All chunks as one.

    Attributes:
        plans: by ascending key, a sample that comes twice once.
        deferred: of those whose duration is not known, by ascending key.
        contradictory: places in the data of the samples whose rows give different durations, one row of each.
    """

    plans: NDArray[Any]
    deferred: NDArray[Any]
    contradictory: list[int]


def merged(plans: NDArray[Any], deferred: NDArray[Any]) -> Merged:
    """Bring plans and deferred answers of all chunks in order.

    Raises:
        CollisionError: rows share a key that may not.
    """
    # Of a sample that comes twice, the row that knows the duration comes first and is kept.
    plans = plans[np.lexsort((plans["row"], plans["flags"] & UNKNOWN, plans["key"]))]
    contradictory = []
    same = np.flatnonzero(plans["key"][1:] == plans["key"][:-1])
    for at in same:
        first, second = plans[at], plans[at + 1]
        if first["check"] != second["check"]:
            raise CollisionError(first, second)
        if not second["flags"] & UNKNOWN and first["duration"] != second["duration"]:
            contradictory.append(int(first["row"]))
    plans = np.delete(plans, same + 1)
    deferred = deferred[np.unique(deferred["key"], return_index=True)[1]]
    deferred = deferred[np.isin(deferred["key"], plans["key"][(plans["flags"] & UNKNOWN) > 0])]
    return Merged(plans, deferred, contradictory)


class CollisionError(InputError):
    """Two rows whose keys are one by chance; ``rows`` are their places in the data."""

    def __init__(self, first: Any, second: Any) -> None:
        super().__init__("have the same key but differ in id, video or question: give one of them another id")
        self.rows = sorted((int(first["row"]), int(second["row"])))
