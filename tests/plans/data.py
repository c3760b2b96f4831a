"""Instruction data for the tests of plans, and the command that plans it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from tam_plugin.cli.main import main
from tam_plugin.inductor.grammar import Corpus
from tam_plugin.taxonomy import TaskType

LAYOUT = ("--newline-position", "grid", "--model-max-length", "32768")


def row(number: int, question: str, **more: Any) -> dict[str, Any]:
    """An instruction row; ``video=None`` makes it one of text."""
    turns = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": "It is so."}]
    values = {"id": str(number), "video": f"{number}.mp4", "conversations": turns, **more}
    return {name: value for name, value in values.items() if value is not None}


def questions(count: int, seed: int = 0) -> list[str]:
    """Questions of every task type in turn."""
    rng = random.Random(seed)
    corpus = Corpus.load()
    each = [list(corpus.sample(task.index, -(-count // len(TaskType)), rng)) for task in TaskType]
    return [each[n % len(each)][n // len(each)].question for n in range(count)]


def mixed_rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Videos with and without a duration, and every tenth row of text only."""
    rng = random.Random(seed)
    rows = []
    for number, question in enumerate(questions(count, seed)):
        duration_s = None if number % 7 == 3 else round(rng.lognormvariate(4, 1.2), 2)
        rows.append(row(number, question, duration=duration_s, **({"video": None} if number % 10 == 9 else {})))
    return rows


def write(path: Path, rows: list[Any]) -> Path:
    """Rows as a JSON array, or as JSON lines by the suffix."""
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    path.write_text(lines if path.suffix == ".jsonl" else json.dumps(rows))
    return path


def plan_data(data: Path | str, out: Path | str, *more: str, layout: tuple[str, ...] = LAYOUT) -> int:
    """Exit code of the command."""
    return main(["plan-data", "--data", str(data), "--out", str(out), *layout, *more])


def table(folder: Path) -> dict[str, np.ndarray]:
    """The table, read by the safetensors library."""
    from safetensors.numpy import load_file

    return load_file(folder / "plans.safetensors")
