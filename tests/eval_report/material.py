"""Results folders written by hand: what lmms-eval and the models leave, with figures small enough to work out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATIC, TEMPORAL = "Static Attributes Recognition", "Temporal Sequence Positioning"
DECIDED = [  # task type, confidence, frames, stride, length of each row
    (STATIC, 0.95, 8, 1, 10.0),
    (STATIC, 0.6, 8, 1, 20.0),
    (TEMPORAL, 0.59, 100, 2, 60.0),
    (TEMPORAL, 0.85, 120, 2, 300.0),
]
RIGHT = {"TAM": [1, 0, 1, 1], "baseline": [1, 1, 0, 0]}


def lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def record(row: int, task: str = "choice", **changes: Any) -> dict[str, Any]:
    """A line of the sample log."""
    kind, confidence, frames, stride, duration = DECIDED[row]
    side = -(-27 // stride)
    return {
        **{"task": task, "split": "test", "doc_id": row, "index": 0, "continuation": None, "error": None},
        **{"task_type": kind, "confidence": confidence, "extension": None, "frames": frames, "stride": stride},
        **{"duration_s": duration, "visual_tokens": frames * side * (side + 1), "seconds": 1.0, "output_tokens": 3},
        "prompt_tokens": frames * side * (side + 1) + 50,
        **changes,
    }


def write_results(
    folder: Path, name: str, arguments: str = "pretrained=nowhere", date: str = "20260101_000000"
) -> Path:
    """Results and samples of one task of five rows, the last of which has no answer."""
    inner = folder / "model"
    inner.mkdir(parents=True, exist_ok=True)
    right = [*RIGHT[name], 0]
    values = {
        "results": {"choice": {"alias": "choice", "acc,none": sum(right) / 5, "acc_stderr,none": 0.1}},
        "n-samples": {"choice": {"original": 5, "effective": 5}},
        "config": {"model": "tallva_onevision", "model_args": arguments},
    }
    (inner / f"{date}_results.json").write_text(json.dumps(values))
    samples = [{"doc_id": n, "filtered_resps": "A", "acc": float(score)} for n, score in enumerate(right)]
    samples[4]["resps"] = [["[TAM: no answer] video clips/bad.mp4: cannot be opened"]]
    lines(inner / f"{date}_samples_choice.jsonl", samples)
    return folder


def write_run(folder: Path, name: str = "TAM", arguments: str = "pretrained=nowhere") -> Path:
    """A whole results folder: the log in two processes' files, routing of two layers and three experts."""
    write_results(folder, name, arguments)
    bad = {"task": "choice", "split": "test", "doc_id": 4, "index": 0, "continuation": None, "seconds": 0.1}
    fixed = {} if name == "TAM" else {"task_type": None, "confidence": None, "frames": 64, "stride": 2}
    lines(folder / "log.jsonl", [record(n, **fixed) for n in (0, 1)])
    lines(
        folder / "log.rank1.jsonl",
        [record(2, **fixed), record(3, **fixed), {**bad, "error": "video clips/bad.mp4: cannot be opened"}],
    )
    if name == "TAM":
        counts = [[[6, 2, 0], [4, 4, 0]], [[2, 2, 4], [0, 0, 8]], [[1, 1, 2], [4, 0, 0]]]
        keys = [(STATIC, "short"), (STATIC, "short"), (TEMPORAL, "medium")]
        rows = [
            {**record(n), "task_type": kind, "length_class": length, "counts": counts[n]}
            for n, (kind, length) in enumerate(keys)
        ]
        lines(folder / "routing.jsonl", rows)
    return folder


def write_training(folder: Path) -> Path:
    """A trainer's state."""
    folder.mkdir(parents=True)
    history = [{"step": n, "loss": 2.0 / n} for n in range(1, 5)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return folder
