"""A tiny Inductor extended by ``tam inductor extend``, and questions of the ninth type and of one of the eight."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tam_plugin.cli.main import main
from tests.inductor_finetuning.tiny import WORDS, compact_base, write_data

LABEL = "Endless Videos"
DESCRIPTION = "Videos that have\nno end."
LINE = "This question is about Endless Videos. Pay attention to: Videos that have no end."
RULE = {"frames_per_second": 0.5, "strides": [3, 4], "min_frames": [[0, 5]], "max_frames": [[0, 17]]}
NINTH = f"what is {WORDS[8]} in the video"
SEVENTH = f"show me {WORDS[6]}"


def extended_inductor(folder: Path) -> Path:
    """Teach a tiny base the ninth type by the command."""
    base = compact_base(folder / "base")
    write_data(folder / "replay.jsonl", range(1, 9), 20, seed=1)
    write_data(folder / "samples.jsonl", {9: LABEL}, 60, seed=2)
    definition = {"label": LABEL, "description": DESCRIPTION, "policy": RULE}
    (folder / "task.yaml").write_text(yaml.safe_dump(definition))
    given = {"base": base, "definition": folder / "task.yaml", "data": folder / "samples.jsonl"}
    given |= {"replay": folder / "replay.jsonl", "out": folder / "inductor"}
    numbers = {"epochs": 6, "batch-size": 16, "learning-rate": 1e-2, "head-learning-rate": 1e-2, "rank": 4, "alpha": 8}
    argv = [str(word) for name, value in {**given, **numbers}.items() for word in (f"--{name}", value)]
    assert main(["inductor", "extend", *argv]) == 0
    return folder / "inductor"


def write_queries(path: Path, rows: list[tuple[str, object]]) -> Path:
    """Labelled questions for ``tam inductor eval``."""
    path.write_text("".join(json.dumps({"question": text, "label": label}) + "\n" for text, label in rows))
    return path
