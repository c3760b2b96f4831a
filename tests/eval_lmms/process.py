"""lmms-eval as a user starts it: its command line in a process of its own, and what that leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.eval_lmms.material import TASKS, Tasks


@dataclass(frozen=True)
class Outcome:
    """What a run of lmms-eval left."""

    folder: Path
    output: str
    code: int = 0

    @property
    def results(self) -> dict[str, Any]:
        """The results file."""
        files = list(self.folder.rglob("*_results.json"))
        assert len(files) == 1, self.output[-3000:]
        return json.loads(files[0].read_text())

    def samples(self, task: str) -> list[dict[str, Any]]:
        """The harness's own sample file of a task, by row."""
        files = list(self.folder.rglob(f"*_samples_{task}.jsonl"))
        assert len(files) == 1, self.output[-3000:]
        return sorted(map(json.loads, files[0].read_text().splitlines()), key=lambda sample: sample["doc_id"])

    def answers(self, task: str) -> list[Any]:
        """The response of each row."""
        return [sample["filtered_resps"] for sample in self.samples(task)]


def run_lmms_eval(folder: Path, *arguments: Any, **options: Any) -> Outcome:
    """Run ``python -m lmms_eval`` as a shell would; arguments are those of :func:`command_line`."""
    command, environment = command_line(folder, *arguments, **options)
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    return Outcome(folder / "out", done.stdout, done.returncode)


def command_line(
    folder: Path,
    model: str,
    model_args: dict[str, object],
    tasks: Tasks,
    *,
    names: str = ",".join(TASKS),
    options: tuple[str, ...] = (),
    launcher: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """The command and its environment."""
    command = [
        *(launcher or (sys.executable,)),
        *("-m", "lmms_eval", "--model", model, "--tasks", names, "--include_path", str(tasks.folder)),
        *("--model_args", ",".join(f"{name}={value}" for name, value in model_args.items())),
        *("--output_path", str(folder / "out"), "--log_samples", *options),
    ]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COV_CORE")}
    return command, {
        **inherited,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }
