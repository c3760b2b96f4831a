"""``tam data stats``: queries by task type and source, the length of the questions, the duration of the videos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.inductor.data.records import Record, UniqueIds, read_records
from tam_plugin.taxonomy import TaskType

UNLABELLED = "not labelled"
_WORDS = (5, 10, 15, 20, 30, 50, 100)
_SECONDS = (15, 30, 60, 180, 600, 1800, 3600)


@dataclass
class Stats:
    """Counts over queries; nothing grows with their number.

    Attributes:
        cells: (task type 1-8 or None, source) → queries.
        second: queries with a second valid label.
        with_options: queries with answer options.
        words: words of the question → queries.
        seconds: whole seconds of the video (rounded down), or None where it is not known → queries.
    """

    cells: Counter[tuple[int | None, str]] = field(default_factory=Counter)
    second: int = 0
    with_options: int = 0
    words: Counter[int] = field(default_factory=Counter)
    seconds: Counter[int | None] = field(default_factory=Counter)

    def add(self, record: Record) -> None:
        """Count one query."""
        self.cells[record.label, record.dataset or "no name"] += 1
        self.second += record.label2 is not None
        self.with_options += record.options is not None
        self.words[len(record.question.split())] += 1
        self.seconds[None if record.duration_s is None else int(record.duration_s)] += 1

    @property
    def count(self) -> int:
        """All queries."""
        return sum(self.cells.values())

    @property
    def sources(self) -> list[str]:
        """Names of the sources, the largest first, then by name."""
        totals: Counter[str] = Counter()
        for (_, source), count in self.cells.items():
            totals[source] += count
        return sorted(totals, key=lambda name: (-totals[name], name))

    @property
    def rows(self) -> list[tuple[str, int | None]]:
        """Name and key of each line of the class table: the task types, and one for the rest where there is any."""
        rows: list[tuple[str, int | None]] = [(task.label, task.index) for task in TaskType]
        return rows + ([(UNLABELLED, None)] if any(label is None for label, _ in self.cells) else [])

    def as_dict(self) -> dict[str, Any]:
        """Plain values: counts by task type and source, histograms of length and duration."""
        return {
            "queries": self.count,
            "with_label2": self.second,
            "with_options": self.with_options,
            "classes": {
                name: {source: self.cells[label, source] for source in self.sources} for name, label in self.rows
            },
            "question_words": _histogram(self.words, (e + 1 for e in _WORDS), _word_range) | _quantiles(self.words),
            "duration_s": _histogram(self.seconds, _SECONDS, _second_range)
            | {"unknown": self.seconds[None]}
            | _quantiles(self.seconds),
        }


def count_queries(paths: Sequence[str | Path]) -> Stats:
    """Count the queries of files of records; the ids of all are held in memory to find one that comes twice.

    Raises:
        InputError: a file is missing, empty or malformed, or an id comes twice.
    """
    stats, ids = Stats(), UniqueIds()
    for path in paths:
        for record, _, _ in read_records(path, ids):
            stats.add(record)
    return stats


def _word_range(low: int, high: int | None) -> str:
    return f"{low or 1}-{high - 1}" if high else f"over {low - 1}"


def _second_range(low: int, high: int | None) -> str:
    return f"{low}-{high} s" if high else f"{low} s and more"


def _histogram(counts: Counter[Any], edges: Iterable[int], name: Any) -> dict[str, Any]:
    """Queries in each range from an edge up to the next, without the next."""
    lows = [0, *edges]
    highs: list[int | None] = [*lows[1:], None]
    return {
        "histogram": {
            name(low, high): sum(c for v, c in counts.items() if v is not None and low <= v and (not high or v < high))
            for low, high in zip(lows, highs, strict=True)
        }
    }


def _quantiles(counts: Counter[Any]) -> dict[str, int | None]:
    """Median, 95th percentile (both the lower one of two) and largest of the known values."""
    known = sorted((value, count) for value, count in counts.items() if value is not None)
    total = sum(count for _, count in known)
    return {name: _at(known, share * total) for name, share in (("median", 0.5), ("p95", 0.95), ("largest", 1.0))}


def _at(known: list[tuple[int, int]], rank: float) -> int | None:
    seen = 0
    for value, count in known:
        seen += count
        if seen >= rank:
            return value
    return None
