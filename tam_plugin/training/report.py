"""What plans come to: frames × stride × task, tokens against the fixed baseline, and what could not be looked at."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tam_plugin.budget import BudgetPolicy
from tam_plugin.errors import one_line
from tam_plugin.taxonomy import TaskType
from tam_plugin.training.chunks import BASELINE_FRAMES, BASELINE_STRIDE
from tam_plugin.training.journal import Chunk
from tam_plugin.training.layout import token_layout, visual_tokens
from tam_plugin.training.table import FALLBACK, GIVEN, PROBED, UNKNOWN

LISTED = 20
_FRAMES = (4, 8, 16, 24, 32, 48, 64, 96, 120)


def summary(chunks: Sequence[Chunk], policy: BudgetPolicy, samples: int) -> dict[str, Any]:
    """Counts over rows, as plain values.

    Args:
        chunks: all of the data.
        policy: in the host's layout.
        samples: distinct samples among the rows.
    """
    tokens, baseline = 0, 0
    cells: Counter[tuple[int, int, int]] = Counter()
    flags: Counter[int] = Counter()
    unreadable: dict[str, str] = {}
    for chunk in chunks:
        plans = chunk.plans
        tokens += int(visual_tokens(plans["frames"], plans["stride"], token_layout(policy)).sum())
        baseline += chunk.baseline_tokens
        cells.update(zip(*(plans[name].tolist() for name in ("task", "stride", "frames")), strict=True))
        flags.update(plans["flags"].tolist())
        unreadable.update((video, reason) for video, reason in chunk.unreadable)
    rows, videos = sum(chunk.rows for chunk in chunks), sum(len(chunk.plans) for chunk in chunks)
    histogram: dict[str, dict[str, dict[str, int]]] = {}
    for (task, stride, frames), count in sorted(cells.items()):
        by_stride = histogram.setdefault(TaskType(task).label, {})
        by_stride.setdefault(str(stride), {})[str(frames)] = count
    return {
        "rows": rows,
        "rows_without_video": rows - videos,
        "rows_with_video": videos,
        "samples": samples,
        "durations": {
            name: sum(count for value, count in flags.items() if value & flag)
            for name, flag in (("probed", PROBED), ("given", GIVEN), ("unknown", UNKNOWN))
        },
        "fallback": sum(count for value, count in flags.items() if value & FALLBACK),
        "truncated_questions": sum(chunk.truncated for chunk in chunks),
        "visual_tokens": tokens,
        "baseline": {"frames": BASELINE_FRAMES, "stride": BASELINE_STRIDE, "visual_tokens": baseline},
        "visual_tokens_saved": baseline - tokens,
        "histogram": histogram,
        "unreadable": [list(item) for item in sorted(unreadable.items())],
    }


def as_markdown(counts: Mapping[str, Any]) -> str:
    """The counts for people."""
    baseline, durations = counts["baseline"], counts["durations"]
    saved = counts["visual_tokens_saved"]
    share = f" ({100 * saved / baseline['visual_tokens']:.1f} %)" if baseline["visual_tokens"] else ""
    lines = [
        f"{counts['rows']} rows: {counts['rows_with_video']} about a video ({counts['samples']} distinct), "
        f"{counts['rows_without_video']} without one.",
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
    unreadable = counts["unreadable"]
    if unreadable:
        lines += ["", f"{len(unreadable)} videos cannot be read:", ""]
        lines += [f"- {one_line(video)}: {one_line(reason)}" for video, reason in unreadable[:LISTED]]
        if len(unreadable) > LISTED:
            lines.append(f"- and {len(unreadable) - LISTED} more: plans.json has all")
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
            lines.append([task, stride, *map(str, counts), str(sum(counts))])
    return [f"| {' | '.join(line)} |" for line in lines]
