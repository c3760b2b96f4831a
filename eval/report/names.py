"""What several parts of a report share."""

from __future__ import annotations

from tam_plugin.taxonomy import TaskType

TITLES = {
    task: f"{task.index} {name}"
    for task, name in zip(
        TaskType,
        ("Static", "Action", "Fine-grained", "Temporal", "Spatial", "Summary", "Reasoning", "OCR"),
        strict=True,
    )
}
CONFIDENCE, RADAR, BUDGETS = "confidence.png", "task_types.png", "budget_map.png"
OPERATIONS, HEATMAP, LOAD, LOSSES = "accuracy_flops.png", "routing.png", "expert_load.png", "losses.png"
FIGURES = (CONFIDENCE, RADAR, BUDGETS, OPERATIONS, HEATMAP, LOAD, LOSSES)
NO_LOG = "Not shown: no sample log in the folder of {}; evaluate with log=FILE.jsonl in --model_args."
