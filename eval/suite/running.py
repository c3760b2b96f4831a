"""Runs a suite: one process of lmms-eval per benchmark, its output and its sample log beside its results."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.suite.benchmarks import Benchmark, Suite, has_judge
from tam_plugin.eval.suite.processes import call, locked
from tam_plugin.eval.suite.summary import complete_results
from tam_plugin.storage import difference, replace_file

SETTINGS, SAMPLES, OUTPUT, RESULTS = "suite.json", "samples.jsonl", "lmms_eval.log", "results"
_TAIL_BYTES = 20_000


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is run on every benchmark.

    Attributes:
        model: lmms-eval's name of it.
        model_args: as its command line takes them; ``log`` is added.
        out: folder of everything that is written.
        batch_size: requests that are computed together.
        launcher: words before ``-m lmms_eval``; empty for this Python, ``accelerate launch`` for several processes.
        more: further arguments of lmms-eval.
    """

    model: str
    model_args: str
    out: Path
    batch_size: int = 1
    launcher: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    def folder(self, benchmark: Benchmark) -> Path:
        """Where a benchmark's files are."""
        return self.out / benchmark.folder

    def command(self, suite: Suite, benchmark: Benchmark, tasks: Sequence[str]) -> list[str]:
        """The command of one benchmark."""
        folder = self.folder(benchmark)
        model_args = ",".join(part for part in (self.model_args, f"log={folder / SAMPLES}") if part)
        return [
            *(self.launcher or (sys.executable,)),
            *("-m", "lmms_eval", "--model", self.model, "--model_args", model_args),
            *("--tasks", ",".join(tasks), "--batch_size", str(self.batch_size)),
            *("--output_path", str(folder / RESULTS), "--log_samples"),
            *(("--include_path", suite.include_path) if suite.include_path else ()),
            *self.more,
        ]

    def check(self) -> None:
        """Raise ConfigError where an argument is the suite's to decide."""
        names = [part.partition("=")[0].strip() for part in self.model_args.split(",")]
        if "log" in names:
            raise ConfigError("--model-args: log: expected none, each benchmark keeps its own under --out")
        if "," in str(self.out):
            raise ConfigError(f"--out {str(self.out)!r}: expected a path without commas, which part --model_args")
        taken = {"--tasks", "--output_path", "--model", "--model_args", "--batch_size", "--log_samples"}
        if found := [word for word in self.more if word.partition("=")[0] in taken]:
            raise ConfigError(f"--lmms-args: {found[0]}: expected none of {', '.join(sorted(taken))}")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a benchmark: ``done``, ``done before``, ``left out`` or ``failed``, and why."""

    benchmark: Benchmark
    state: str
    tasks: tuple[str, ...] = ()
    results: dict[str, Any] | None = None
    reason: str | None = None


def environment(suite: Suite) -> dict[str, str]:
    """What the processes get beside this one's own environment."""
    # Task files of lmms-eval 0.7.3 (activitynetqa, tempcompass) cannot be imported where HF_HOME is not set.
    defaults = {"HF_HOME": os.path.expanduser("~/.cache/huggingface"), "MODEL_VERSION": suite.judge_model}
    return {name: os.environ.get(name, value) for name, value in defaults.items() if value is not None}


def commands(suite: Suite, run: Run) -> Iterator[tuple[Benchmark, str | None, str | None]]:
    """Each benchmark with its command line (None if it is left out) and what is left out of it, if anything."""
    run.check()
    for benchmark in suite.benchmarks:
        tasks = benchmark.runnable(has_judge())
        variables = [f"{name}={shlex.quote(value)}" for name, value in environment(suite).items()]
        line = " ".join([*variables, shlex.join(run.command(suite, benchmark, tasks))]) if tasks else None
        yield benchmark, line, left_out(benchmark, tasks)


def left_out(benchmark: Benchmark, tasks: Sequence[str]) -> str | None:
    """What is said of tasks that are not run."""
    missing = [task for task in benchmark.tasks if task not in tasks]
    if not missing:
        return None
    return f"{', '.join(missing)} left out: its judge needs OPENAI_API_KEY (or API_TYPE=azure and AZURE_API_KEY)"


def run_suite(suite: Suite, run: Run, say: Callable[[str], None]) -> list[Outcome]:
    """Run every benchmark that has no complete results yet; calling it again resumes after a kill.

    Args:
        suite: the benchmarks.
        run: the model, and where files go.
        say: takes a line of progress.

    Raises:
        ConfigError: ``run.out`` holds a run of something else, or its arguments cannot be used.
        InputError: the folder cannot be written, or a run in it is alive.
    """
    run.check()
    with locked(run.out) as lock:
        _check_settings(suite, run)
        outcomes = []
        for benchmark in suite.benchmarks:
            outcome = _run_one(suite, run, benchmark, lock, say)
            say(f"{benchmark.name}: {outcome.state}{f': {outcome.reason}' if outcome.reason else ''}")
            outcomes.append(outcome)
        return outcomes


def _run_one(suite: Suite, run: Run, benchmark: Benchmark, lock: int, say: Callable[[str], None]) -> Outcome:
    tasks, folder = benchmark.runnable(has_judge()), run.folder(benchmark)
    reason = left_out(benchmark, tasks)
    if not tasks:
        return Outcome(benchmark=benchmark, state="left out", reason=reason)
    results = complete_results(folder / RESULTS, tasks)
    if results is not None:
        return Outcome(benchmark=benchmark, state="done before", tasks=tasks, results=results, reason=reason)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / OUTPUT
    say(f"{benchmark.name}: {'resumes' if (folder / SAMPLES).exists() else 'starts'}, output in {log}")
    code = call(run.command(suite, benchmark, tasks), log, {**os.environ, **environment(suite)}, lock)
    results = complete_results(folder / RESULTS, tasks)
    # lmms-eval leaves with 0 after most errors: what counts is the results file.
    if code or results is None:
        why = f"exit {code}" if code else "no complete results file"
        return Outcome(
            benchmark=benchmark, state="failed", tasks=tasks, reason=f"{why}; see {log} (its last error: {_error(log)})"
        )
    return Outcome(benchmark=benchmark, state="done", tasks=tasks, results=results, reason=reason)


def _check_settings(suite: Suite, run: Run) -> None:
    """Results of one folder are of one model and the same arguments."""
    file = run.out / SETTINGS
    now = {"model": run.model, "model_args": run.model_args, "lmms_args": list(run.more)}
    if file.exists():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{file}: not a suite's settings: {error}") from error
        if changed := difference(before, now):
            raise ConfigError(f"--out {str(run.out)!r} belongs to another run: {changed}; name another --out")
        return
    with replace_file(file) as out:
        out.write(json.dumps(now, indent=2) + "\n")


def _error(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "Error" in line]
    return (named or lines or ["it is empty"])[-1][:300]
