"""Running the command line on hostile files: a process with little memory and little time, and what it said."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

CODE = "from tam_plugin.cli.main import main; import sys; sys.exit(main(sys.argv[1:]))"


def limited(argv: Sequence[object], *, memory_gb: float = 6, seconds: int = 60, code: str = CODE, **more: Any):
    """Run ``tam`` (or other code) with bounded memory and time; a hang or an exhausted memory fails the test.

    torch alone reserves about 3 GB of addresses.
    """

    def limits() -> None:
        size = int(memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    return subprocess.run(
        [sys.executable, "-c", code, *map(str, argv)],
        capture_output=True,
        text=True,
        timeout=seconds,
        preexec_fn=limits,
        check=False,
        **more,
    )


def assert_refused(done, *words: str) -> None:
    """Exit code 2 and one line that holds the words."""
    lines = [line for line in done.stderr.splitlines() if not line.startswith("tam: note:")]
    assert done.returncode == 2 and len(lines) == 1, (done.returncode, done.stderr[-2000:])
    assert all(word in lines[0] for word in words), lines[0]
    assert lines[0].isprintable(), repr(lines[0])


CHILD = """
import contextlib, io, json, signal, sys, time
from tam_plugin.cli.main import main

def stop(*_):
    raise SystemExit("it did not end")

signal.signal(signal.SIGALRM, stop)
for argv in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    signal.alarm(60)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(argv)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = repr(error)
    signal.alarm(0)
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
"""


def limited_many(cases: Sequence[Sequence[object]], *, memory_gb: float = 8) -> list[tuple[Any, str, str]]:
    """Exit code, stdout and stderr of several commands, run one after another by one process of bounded memory."""
    import json

    done = limited([], code=CHILD, memory_gb=memory_gb, seconds=60 * (1 + len(cases)), input=json.dumps(
        [[str(part) for part in argv] for argv in cases]
    ))  # fmt: skip
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(cases), (len(found), done.stderr[-2000:])
    return found


def is_refusal(result: tuple[Any, str, str], words: str) -> bool:
    """Whether a command ended with exit code 2 and one line that holds the words."""
    code, out, err = result
    lines = [line for line in err.splitlines() if not line.startswith("tam: note:")]
    return code == 2 and not out and len(lines) == 1 and words in lines[0] and lines[0].isprintable()
