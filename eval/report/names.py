"""What several parts of a report share."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from tam_plugin.taxonomy import TaskType

TITLES = {
    task.label: f"{task.index} {name}"
    for task, name in zip(
        TaskType,
        ("Static", "Action", "Fine-grained", "Temporal", "Spatial", "Summary", "Reasoning", "OCR"),
        strict=True,
    )
}
TITLE_CHARS = 20
"""Characters of a line of an extension's label in a figure."""
CONFIDENCE, RADAR, BUDGETS = "confidence.png", "task_types.png", "budget_map.png"
OPERATIONS, HEATMAP, LOAD, LOSSES = "accuracy_flops.png", "routing.png", "expert_load.png", "losses.png"
FIGURES = (CONFIDENCE, RADAR, BUDGETS, OPERATIONS, HEATMAP, LOAD, LOSSES)
NO_LOG = "Not shown: no sample log in the folder of {}; evaluate with log=FILE.jsonl in --model_args."


def decided_label(record: Mapping[str, Any]) -> str | None:
    """Label of the task type that decided a request: an extension's, or one of the eight; None where none did."""
    # Logs of earlier versions name the likeliest of the eight as task_type beside the extension that decided.
    return record.get("extension") or record.get("task_type")


def in_order(labels: Iterable[str]) -> list[str]:
    """The eight labels in paper order, whether they are among ``labels`` or not, then the extensions' by name."""
    return [*TITLES, *sorted(set(labels) - TITLES.keys())]


def title(label: str) -> str:
    """A task type's name in a figure: number and a word for the eight; the label, in lines, for an extension."""
    if label in TITLES:
        return TITLES[label]
    return textwrap.fill(label, TITLE_CHARS).replace("$", r"\$")  # a dollar sign would begin a formula
