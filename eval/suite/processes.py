"""Processes of a suite: one at a time in its folder, none that outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tam_plugin.storage import locked as locked_file

LOCK = ".lock"
_GRACE_S = 20.0


def call(command: Sequence[str], log: Path, variables: dict[str, str], lock: int) -> int:
    """Run a command; it never outlives this call."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            start_new_session=True,
            pass_fds=(lock,),  # if this process is killed outright, the folder stays locked while the child lives
        )
        try:
            return child.wait()
        finally:
            if child.poll() is None:
                _end(child)


def _end(child: subprocess.Popen) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_S)
            return


@contextlib.contextmanager
def locked(out: Path) -> Iterator[int]:
    """The folder for this run alone; SIGTERM ends the run as an interrupt does."""
    with locked_file(out / LOCK, alternative="name another --out") as lock:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield lock
        finally:
            signal.signal(signal.SIGTERM, before)
