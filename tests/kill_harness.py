"""SIGKILL right before a piece of work changes the disk for the N-th time, in forks of one process.

``run`` starts a process that imports what the work needs once; each run is a fork of it, so that dozens of kills cost
little more than the work itself. What changes the disk is counted: files opened to be written, made, renamed, linked,
cut or removed under the target folder, and every write and sync by descriptor. What libraries write by themselves
(safetensors, C++) is not seen; the calls around it are.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_BY_DESCRIPTOR = ("pwrite", "write", "fsync")
_BY_NAME = ("os.rename", "os.link", "os.truncate", "os.remove", "os.mkdir", "os.rmdir")


@dataclass(frozen=True)
class Run:
    """What became of a run.

    Attributes:
        touches: how often it changed the disk; None if it was killed.
        files: what was in its folder afterwards.
        error: the work's own error, if it ended by one.
    """

    touches: int | None
    files: list[str]
    error: str | None = None

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.touches is None


def run(
    work: str,
    material: dict[str, Any],
    runs: Sequence[tuple[Path, dict[str, Any], float | None]],
    timeout_s: float = 600,
) -> list[Run]:
    """Do a piece of work several times, each in a fork.

    Args:
        work: ``module:function``; called with ``material``, it makes ready what all runs share and returns a function
            of ``folder`` and a run's options.
        material: its keyword arguments, as JSON values.
        runs: folder, options, and before which change of the disk to kill: a number from 1 on, a share of the first
            run of the same options, steps back from its end (0 or negative), or None for not at all.
    """
    plan = json.dumps([[str(folder), options, kill_at] for folder, options, kill_at in runs])
    command = [sys.executable, "-m", "tests.kill_harness", work, json.dumps(material, default=str), plan]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=timeout_s
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [Run(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"touches"')]
    assert len(found) == len(runs), done.stderr[-4000:]
    return found


def kill_when(process: subprocess.Popen[Any], reached: Callable[[], bool], timeout_s: float = 240) -> None:
    """SIGKILL to a process from outside, as soon as it has come so far; it must not have ended by itself."""
    give_up = time.monotonic() + timeout_s
    while process.poll() is None and not reached():
        assert time.monotonic() < give_up, "the process has not come so far"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the process ended by itself"


def _watch(folder: str, touch: Callable[[], None]) -> None:
    mine, inside = os.getpid(), os.path.realpath(folder)

    def audited(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if os.getpid() == mine and (writes or event in _BY_NAME):
            name = args[0] if isinstance(args[0], str) else getattr(args[0], "__fspath__", lambda: "")()
            if isinstance(args[0], int) or os.path.abspath(name).startswith(inside):
                touch()

    sys.addaudithook(audited)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            if os.getpid() == mine and not (real is _WRITE and args[0] in (1, 2)):
                touch()
            return real(*args, **more)

        return call

    for name in _BY_DESCRIPTOR:
        setattr(os, name, counted(getattr(os, name)))


_WRITE = os.write


def _fork(work: Callable[..., Any], folder: str, options: dict[str, Any], kill_at: int | None) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def touch() -> None:
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        os.dup2(2, 1)
        _watch(folder, touch)
        said: dict[str, Any] = {}
        try:
            work(folder, **options)
        except BaseException as error:
            said["error"] = f"{type(error).__name__}: {error}"
        _WRITE(writing, json.dumps({"touches": count, **said}).encode())
        os._exit(0)
    os.close(writing)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0), status
    said = {"touches": None} if killed else json.loads(os.read(reading, 1 << 16))
    os.close(reading)
    return {**said, "files": sorted(os.listdir(folder)) if os.path.isdir(folder) else []}


def main() -> None:
    """One process of runs, as :func:`run` starts it."""
    module, _, function = sys.argv[1].partition(":")
    work = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    calm: dict[str, int] = {}
    for folder, options, given in json.loads(sys.argv[3]):
        key, kill_at = json.dumps(options), given
        if given is not None and given < 1:  # a share of a calm run, or steps from its end
            kill_at = max(1, round(given * calm[key]) if given > 0 else calm[key] + given)
        said = _fork(work, folder, options, kill_at)
        if said["touches"] is not None:
            calm.setdefault(key, said["touches"])
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
