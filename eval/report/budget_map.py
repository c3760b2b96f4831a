"""Budget map: frames and stride over the video's length, one panel per task type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tam_plugin.budget import Policy
from tam_plugin.eval.report.figures import LINES, MARKERS, drawing
from tam_plugin.eval.report.names import decided_label, in_order, title
from tam_plugin.taxonomy import TaskDistribution, TaskType

STEPS = 60
ROWS = 2


def draw_budget_map(path: Path, records: Sequence[Mapping[str, Any]], policy: Policy | None) -> None:
    """Draw a panel for each of the eight task types, and one for each extension that decided a record.

    Args:
        path: the PNG.
        records: lines of the sample log with frames and stride.
        policy: whose curve is drawn for the eight; None draws the samples alone.
    """
    labels = in_order(str(decided_label(record)) for record in records)
    tasks = {task.label: task for task in TaskType}
    columns = math.ceil(len(labels) / ROWS)
    lengths = [record["duration_s"] for record in records]
    low, high = min([5.0, *lengths]), max([1800.0, *lengths])
    durations = [low * (high / low) ** (step / STEPS) for step in range(STEPS + 1)]
    strides = sorted({int(record["stride"]) for record in records})
    with drawing(path, 5 * columns, 12) as figure:
        panels = figure.subplots(ROWS, columns, sharex=True, sharey=True)
        shown, seconds = panels.flat[: len(labels)], []
        for axes in panels.flat[len(labels) :]:
            axes.set_visible(False)
        for axes, label in zip(shown, labels, strict=True):
            second = axes.twinx()
            seconds.append(second)
            if policy is not None and label in tasks:
                budgets = [policy.budget(TaskDistribution.one_hot(tasks[label]), s) for s in durations]
                axes.plot(durations, [b.num_frames for b in budgets], "k-", linewidth=3, label="policy: frames")
                steps = [b.pool_stride for b in budgets]
                second.step(durations, steps, linestyle=LINES[1], color="0.4", linewidth=3, label="policy: stride")
            own = [record for record in records if decided_label(record) == label]
            for stride in strides:
                seen = [record for record in own if record["stride"] == stride]
                axes.plot(
                    [record["duration_s"] for record in seen],
                    [record["frames"] for record in seen],
                    MARKERS[(stride - 1) % len(MARKERS)],
                    color="black",
                    markerfacecolor="white" if stride % 2 == 0 else "0.6",
                    markersize=13,
                    label=f"sample at stride {stride}",
                )
            axes.set_title(f"{title(label)} (n = {len(own)})", fontsize=19)
            axes.set_xscale("log")
            axes.grid(alpha=0.4)
            second.set_ylim(0.5, 4.5)
            if axes in panels[:, -1]:
                second.set_yticks([1, 2, 3, 4])
                second.set_ylabel("stride")
            else:
                second.set_yticks([])
        most = max(axes.get_ylim()[1] for axes in shown)
        panels[0, 0].set_ylim(0, math.ceil(most / 20) * 20)
        for axes in panels[:, 0]:
            axes.set_ylabel("frames")
        for axes in shown[-columns:]:  # the lowest one of each column
            axes.set_xlabel("length of the video (s)")
            axes.tick_params(labelbottom=True)
        handles, names = (list(part) for part in zip(*_legend([*shown, *seconds]), strict=True))
        figure.legend(handles, names, loc="outside upper center", ncols=4)


def _legend(panels: Sequence[Any]) -> list[tuple[Any, str]]:
    """Each line and marker once."""
    found: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [(handle, label) for label, handle in found.items()]
