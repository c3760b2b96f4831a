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
