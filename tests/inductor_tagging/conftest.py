"""What the tests of tagging share: rows, the command here or in a process of its own, and reading what it wrote."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tam_plugin.cli.main import main

KEY = "sk-Secret/0123456789-abcdef"
KINDS = (*[""] * 15, " aloud", " apart", " two names", " no such name", " never right")


def make_rows(count: int, kinds: Iterable[str] = KINDS) -> list[dict]:
    """Rows whose questions hold their name and, in turn, the words that the server goes by."""
    kinds = tuple(kinds)
    return [
        {
            "id": f"set/{i}",
            "question": f"What is the person doing in part {i} [q{i}]{kinds[i % len(kinds)]}?",
            "options": ["läuft", "sits"] if i % 3 else None,
            "duration_s": 10.5 if i % 2 else None,
            "dataset": "set",
        }
        for i in range(count)
    ]


def write(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Starts ``tam data ...`` in the test's folder; processes that are left at the end are killed.

    ``memory_bytes`` limits the address space; further keywords are environment variables.
    """
    started = []

    def begin(
        *argv: str, key: str | None = KEY, memory_bytes: int = resource.RLIM_INFINITY, **variables: str
    ) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        environment.pop("OPENAI_API_KEY", None)
        if key is not None:
            environment["OPENAI_API_KEY"] = key
        environment |= variables
        process = subprocess.Popen(
            [sys.executable, "-m", "tam_plugin.cli.main", "data", *argv],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        resource.prlimit(process.pid, resource.RLIMIT_AS, (memory_bytes, resource.RLIM_INFINITY))
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def tam(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., tuple[int, str]]:
    """Runs ``tam data ...`` in this process and the test's folder; gives the exit code and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "*")

    def finish(*argv: str, key: str | None = KEY) -> tuple[int, str]:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            monkeypatch.setenv("OPENAI_API_KEY", key)
        code = main(["data", *argv])
        captured = capsys.readouterr()
        assert captured.out == ""
        return code, captured.err

    return finish
