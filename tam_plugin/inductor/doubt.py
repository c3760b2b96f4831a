"""What an Inductor does not know: text that asks nothing about a video, and unknown scripts (Sec. 4.4: fallbacks).

A checkpoint's ``tam_doubt`` says which of its answers mean nothing. Checkpoints without it are taken at their word.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.inductor.text import PreparedQuery
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskDistribution

DOUBT_FIELD = "tam_doubt"
"""Field of a checkpoint's ``config.json``."""


@dataclass(frozen=True)
class Doubt:
    """When an answer means nothing.

    Attributes:
        max_entropy: above this entropy of the probabilities (:func:`entropy`) the text is taken to ask nothing about a
            video: training gives such texts every type alike, while a question between two or three types, however
            unsure, leaves the others out.
        max_unknown_share: above this share of characters that the classifier has no piece for, it has not read the
            text.
    """

    max_entropy: float
    max_unknown_share: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, where: str) -> Doubt | None:
        """Read ``tam_doubt``; None where the checkpoint has none.

        Raises:
            ConfigError: other fields than the two, or values outside [0, 1].
        """
        values = config.get(DOUBT_FIELD)
        if values is None:
            return None
        names = set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or set(values) != names:
            raise ConfigError(f"{where}: {DOUBT_FIELD} must hold {' and '.join(sorted(names))}, got {values!r}"[:300])
        for name, value in values.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ConfigError(f"{where}: {DOUBT_FIELD}.{name} must be a number from 0 to 1, got {value!r}")
        return cls(**{name: float(value) for name, value in values.items()})

    def judge(self, found: TaskDistribution, query: PreparedQuery, unknown_share: float) -> TaskDistribution:
        """The distribution that the policy sees: less sure where the text is off home ground.

        Unknown characters move the probabilities towards all types alike; the likeliest stays the likeliest.

        Args:
            found: what the classifier says.
            query: the query that it read.
            unknown_share: share of the query's characters that the classifier has no piece for.
        """
        if not any(character.isalpha() for character in query.text):
            return TaskDistribution.unknown("the query holds no word")
        if not query.asks:
            return TaskDistribution.unknown("the query is an instruction on the form of the answer alone")
        if unknown_share > self.max_unknown_share:
            return TaskDistribution.unknown(
                f"{unknown_share:.0%} of the query's characters are of a script that the Inductor does not know"
            )
        probabilities = tuple(p + unknown_share * (1 / NUM_TASK_TYPES - p) for p in found.probabilities)
        if found.extension is None and entropy(probabilities) > self.max_entropy:
            return TaskDistribution.unknown("the query does not read like a question about a video")
        return replace(found, probabilities=probabilities)


def entropy(probabilities: Sequence[float]) -> float:
    """The entropy of probabilities, from 0 (one of them is 1) to 1 (all alike)."""
    return -sum(p * math.log(p) for p in probabilities if p > 0) / math.log(len(probabilities))
