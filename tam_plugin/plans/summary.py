"""Summary of plans: frames × stride × task, tokens against the fixed baseline, and what could not be read."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tam_plugin.budget import BASELINE_FRAMES, BASELINE_STRIDE, Policy
from tam_plugin.plans.bad_rows import MALFORMED, NOT_JSON, UNREADABLE
from tam_plugin.plans.journal import Chunk
from tam_plugin.plans.table import FALLBACK, GIVEN, PROBED, UNKNOWN
from tam_plugin.taxonomy import AnyTask, TaskExtension, TaskType

_FRAMES = (4, 8, 16, 24, 32, 48, 64, 96, 120)


def summary(
    chunks: Iterable[Chunk],
    policy: Policy,
    samples: int | None,
    extensions: Callable[[], Sequence[TaskExtension]],
) -> dict[str, Any]:
    """Counts over rows, as plain values.

    Args:
        chunks: all of the data, or of a part of it.
        policy: in the host's layout.
        samples: distinct samples among the rows; None where that is not known yet.
        extensions: gives the Inductor's task types beyond the eight; called only if one of them decided a row, since
            it may have to load the Inductor.
    """
    tokens, baseline, rows, planned, truncated, bad_durations = 0, 0, 0, 0, 0, 0
    cells: Counter[tuple[int, int, int, int]] = Counter()
    flags: Counter[int] = Counter()
    bad: Counter[str] = Counter()
    unreadable: set[str] = set()
    without_video = 0
    for chunk in chunks:
        plans = chunk.plans
        tokens += int(policy.layout.count(plans["frames"], plans["stride"]).sum())
        baseline += chunk.baseline_tokens
        decided = np.where(plans["extension"] > 0, 0, plans["task"]).tolist()  # not told apart by what did not decide
        cells.update(
            zip(plans["extension"].tolist(), decided, plans["stride"].tolist(), plans["frames"].tolist(), strict=True)
        )
        flags.update(plans["flags"].tolist())
        kinds = Counter(row.kind for row in chunk.bad)
        bad.update(kinds)
        unreadable.update(chunk.unreadable)
        rows, planned = rows + chunk.rows, planned + len(plans)
        without_video += chunk.rows - len(plans) - kinds[MALFORMED] - kinds[NOT_JSON]
        truncated, bad_durations = truncated + chunk.truncated, bad_durations + chunk.bad_durations
    histogram: dict[str, dict[str, dict[str, int]]] = {}
    for (place, task, stride, frames), count in sorted(cells.items()):  # the eight, then extensions
        decided_task: AnyTask = extensions()[place - 1] if place else TaskType(task)
        by_stride = histogram.setdefault(decided_task.label, {})
        by_stride.setdefault(str(stride), {})[str(frames)] = count
    return {
        "rows": rows,
        "rows_without_video": without_video,
        "rows_with_video": planned,
        "samples": samples,
        "durations": {
            name: sum(count for value, count in flags.items() if value & flag)
            for name, flag in (("probed", PROBED), ("given", GIVEN), ("unknown", UNKNOWN))
        },
        "fallback": sum(count for value, count in flags.items() if value & FALLBACK),
        "truncated_questions": truncated,
        "bad_durations": bad_durations,
        "visual_tokens": tokens,
        "baseline": {"frames": BASELINE_FRAMES, "stride": BASELINE_STRIDE, "visual_tokens": baseline},
        "visual_tokens_saved": baseline - tokens,
        "histogram": histogram,
        "bad_rows": {
            "all": sum(bad.values()),
            "unreadable": bad[UNREADABLE],
            "unreadable_videos": len(unreadable),
            "malformed": bad[MALFORMED],
            "not_json": bad[NOT_JSON],
        },
    }


def as_markdown(counts: Mapping[str, Any]) -> str:
    """The counts as Markdown."""
    baseline, durations, bad = counts["baseline"], counts["durations"], counts["bad_rows"]
    saved = counts["visual_tokens_saved"]
    share = f" ({100 * saved / baseline['visual_tokens']:.1f} %)" if baseline["visual_tokens"] else ""
    distinct = "" if counts["samples"] is None else f" ({counts['samples']} distinct)"
    lines = [
        f"{counts['rows']} rows: {counts['rows_with_video']} about a video{distinct}, "
        f"{counts['rows_without_video']} without one, {bad['malformed'] + bad['not_json']} malformed.",
        "",
        f"Visual tokens: {counts['visual_tokens']}; {baseline['frames']} frames at stride {baseline['stride']} for "
        f"every row: {baseline['visual_tokens']}. Visual tokens saved: {saved}{share}.",
        "",
        f"Durations: {durations['probed']} from the video, {durations['given']} from the row, {durations['unknown']} "
        "unknown (planned again once training opens the video).",
        f"The policy's plain rule was not followed for {counts['fallback']} rows; {counts['truncated_questions']} "
        "questions are longer than the Inductor reads.",
        "",
        *_table(counts["histogram"]),
    ]
    contradictory = counts.get("contradictory_durations", 0)
    if counts["bad_durations"] or contradictory:
        lines += [
            "",
            f"Durations that are ignored: rows whose duration is not a number of seconds above 0: "
            f"{counts['bad_durations']}; samples whose rows give different ones: {contradictory}.",
        ]
    if bad["all"]:
        lines += [
            "",
            f"Rows that training cannot use: {bad['all']} ({bad['unreadable']} about {bad['unreadable_videos']} videos "
            f"that cannot be read, {bad['malformed']} malformed, {bad['not_json']} not JSON).",
        ]
    return "\n".join(lines) + "\n"


def _table(histogram: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Rows by task, stride and range of frames, as a Markdown table."""
    edges = [0, *_FRAMES]
    names = [f"{low + 1}-{high}" for low, high in itertools.pairwise(edges)]
    head = ["Task type", "stride", *names, f"over {edges[-1]}", "all"]
    lines = [head, [":--"] + ["--:"] * (len(head) - 1)]
    for task, strides in histogram.items():
        for stride, frames in strides.items():
            places = np.searchsorted(_FRAMES, [int(number) for number in frames])
            counts = np.bincount(places, weights=list(frames.values()), minlength=len(_FRAMES) + 1).astype(int).tolist()
            lines.append([task.replace("|", "\\|"), stride, *map(str, counts), str(sum(counts))])
    return [f"| {' | '.join(line)} |" for line in lines]
