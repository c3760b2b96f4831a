"""Budget map: frames and stride over the video's length, a panel a task type."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tam_plugin.budget import Policy
from tam_plugin.eval.report.figures import LINES, MARKERS, drawing
from tam_plugin.taxonomy import TaskDistribution, TaskType

STEPS = 60


def draw_budget_map(
    path: Path, records: Sequence[Mapping[str, Any]], policy: Policy | None, titles: Mapping[TaskType, str]
) -> None:
    """Draw the eight panels.

    Args:
        path: the PNG.
        records: lines of the sample log with frames and stride.
        policy: whose curve is drawn; None draws the samples alone.
        titles: of the panels.
    """
    lengths = [record["duration_s"] for record in records]
    low, high = min([5.0, *lengths]), max([1800.0, *lengths])
    durations = [low * (high / low) ** (step / STEPS) for step in range(STEPS + 1)]
    strides = sorted({int(record["stride"]) for record in records})
    with drawing(path, 20, 12) as figure:
        panels = figure.subplots(2, 4, sharex=True, sharey=True)
        for axes, task in zip(panels.flat, TaskType, strict=True):
            second = axes.twinx()
            if policy is not None:
                budgets = [policy.budget(TaskDistribution.one_hot(task), s) for s in durations]
                axes.plot(durations, [b.num_frames for b in budgets], "k-", linewidth=3, label="policy: frames")
                steps = [b.pool_stride for b in budgets]
                second.step(durations, steps, linestyle=LINES[1], color="0.4", linewidth=3, label="policy: stride")
            own = [record for record in records if record["task_type"] == task.label]
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
            axes.set_title(f"{titles[task]} (n = {len(own)})", fontsize=19)
            axes.set_xscale("log")
            axes.grid(alpha=0.4)
            second.set_ylim(0.5, 4.5)
            if axes in panels[:, -1]:
                second.set_yticks([1, 2, 3, 4])
                second.set_ylabel("stride")
            else:
                second.set_yticks([])
        most = max(axes.get_ylim()[1] for axes in panels.flat)
        panels[0, 0].set_ylim(0, math.ceil(most / 20) * 20)
        for axes in panels[:, 0]:
            axes.set_ylabel("frames")
        for axes in panels[-1]:
            axes.set_xlabel("length of the video (s)")
        handles, labels = (list(part) for part in zip(*_legend(panels, second), strict=True))
        figure.legend(handles, labels, loc="outside upper center", ncols=4)


def _legend(panels: Any, second: Any) -> list[tuple[Any, str]]:
    """Each line and marker once."""
    found: dict[str, Any] = {}
    for axes in [*panels.flat, second]:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [(handle, label) for label, handle in found.items()]
