"""What the results files of a suite say, in one table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NO_ANSWER = "avg_requests_without_answer"


def complete_results(folder: Path, tasks: Sequence[str]) -> dict[str, Any] | None:
    """The newest results file under a benchmark's folder that holds all of its tasks; None if there is none.

    lmms-eval writes the file in one go after the last request; what a kill left of one cannot be read as JSON.
    """
    for file in sorted(folder.rglob("*_results.json"), key=lambda f: f.stat().st_mtime, reverse=True):
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(values, dict) and set(tasks) <= set(values.get("results") or {}):
            return values
    return None


def scores(results: Mapping[str, Any], task: str) -> dict[str, float]:
    """Metrics of a task; of a group that has none of its own, means over its tasks (as MVBench is published)."""
    own = _metrics(results["results"][task])
    parts = [_metrics(results["results"][t]) for t in _leaves(results, task) if t in results["results"]]
    if own or not parts:
        return own
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: sum(part[name] for part in parts) / len(parts) for name in shared}


def summarize(
    benchmarks: Sequence[tuple[str, Sequence[str], dict[str, Any] | None, str | None]],
) -> list[dict[str, Any]]:
    """One row per task and metric.

    Args:
        benchmarks: name, tasks that were run, results (None where there are none), and note of each.
    """
    rows: list[dict[str, Any]] = []
    for name, tasks, results, note in benchmarks:
        if results is None:
            rows.append({"benchmark": name, "task": None, "note": note})
            continue
        for task in tasks:
            found: dict[str, float | None] = dict(scores(results, task)) or {"no score": None}
            for metric, value in found.items():
                rows.append(
                    {
                        "benchmark": name,
                        "task": task,
                        "metric": metric,
                        "value": value,
                        "samples": _samples(results, task),
                        "requests_without_answer": (results.get("throughput") or {}).get(_NO_ANSWER),
                        "note": note,
                    }
                )
    return rows


def describe(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table in human-readable form."""
    heads = ("benchmark", "task", "metric")
    widths = [max(len(head), *(len(str(row.get(head) or "-")) for row in rows)) for head in heads]
    first = "  ".join(f"{head:<{width}}" for head, width in zip(heads, widths, strict=True))
    lines = [f"{first}  {'value':>9}  {'samples':>8}  {'no answer':>9}"]
    for row in rows:
        cells = "  ".join(f"{row.get(head) or '-'!s:<{width}}" for head, width in zip(heads, widths, strict=True))
        value, samples, failed = row.get("value"), row.get("samples"), row.get("requests_without_answer")
        lines.append(
            f"{cells}  {'-' if value is None else f'{value:.4f}':>9}  {'-' if samples is None else samples:>8}"
            f"  {'-' if failed is None else f'{failed:g}':>9}"
        )
    notes = dict.fromkeys(f"note: {row['benchmark']}: {row['note']}" for row in rows if row.get("note"))
    return "\n".join([*lines, *notes])


def _metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of ``metric,filter`` entries, without their errors and counts."""
    return {
        name.partition(",")[0]: float(value)
        for name, value in entry.items()
        if isinstance(value, (int, float)) and "," in name and "stderr" not in name and "_clt" not in name
    }


def _leaves(results: Mapping[str, Any], task: str) -> list[str]:
    inside = (results.get("group_subtasks") or {}).get(task) or []
    return [leaf for part in inside for leaf in (_leaves(results, part) or [part])]


def _samples(results: Mapping[str, Any], task: str) -> int | None:
    counts = results.get("n-samples") or {}
    found = [counts[t]["effective"] for t in (_leaves(results, task) or [task]) if t in counts]
    return sum(found) if found else None
