"""The experiment: one command, every arm from one shared start, resumable at any moment.

    python -m tam_plugin.eval.taskworld.run --out DIR [--setting cpu|gpu] [--seeds 0 1 2] [--arms both dfr …]

For each seed: an encoder that knows its patches, a dense model that knows the world's words, then each arm by the same
steps on the same clips and questions. Results go to ``DIR/results.jsonl``, a line an arm and seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tam_plugin.eval.taskworld.arms import TRAINED, Arm, runs_of
from tam_plugin.eval.taskworld.experiment import SETTINGS, Experiment, switched
from tam_plugin.eval.taskworld.measuring import by_task_type, measure
from tam_plugin.storage import Journal

TEST_CLIPS = 250
"""Clips of a seed's test split."""


def split_clips(seed: int) -> range:
    """Seeds of the clips that the arms of a seed are measured on: others for each, so that seeds are independent."""
    return range(seed * 1000, seed * 1000 + TEST_CLIPS)


def result(arm: Arm, seed: int, rows: Sequence[Any], setting: str, seconds: float) -> dict[str, Any]:
    """A line of the results."""
    return {
        "arm": arm.name,
        "table": arm.table,
        "row": arm.row,
        "seed": seed,
        "setting": setting,
        "by_task_type": by_task_type(rows),
        "mean_visual_tokens": sum(row.visual_tokens for row in rows) / len(rows),
        "seconds": round(seconds, 1),
        "rows": [asdict(row) for row in rows],
    }


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--setting", choices=SETTINGS, default="gpu" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in TRAINED], default=None)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = args.out / "results.jsonl"
    args.out.mkdir(parents=True, exist_ok=True)
    with Journal(results, wait=True) as journal:
        done = {(line.record["arm"], line.record["seed"]) for line in journal.lines()}
    for seed in args.seeds:
        experiment = Experiment(args.out, SETTINGS[args.setting], seed, device)
        for arm in TRAINED:
            runs = [run for run in runs_of(arm) if (run.name, seed) not in done]
            if not runs or (args.arms and arm.name not in args.arms):
                continue
            start = time.monotonic()
            model = experiment.arm(arm)
            for run in runs:
                running = model if run is arm else switched(model, run, seed).to(device)
                rows = measure(running.eval(), split_clips(seed), by_task=run.by_task)
                with Journal(results, wait=True) as journal:  # several processes may share the file
                    journal.append(result(run, seed, rows, args.setting, time.monotonic() - start))
                print(f"{run.name}, seed {seed}: {by_task_type(rows)}", flush=True)


if __name__ == "__main__":
    main()
