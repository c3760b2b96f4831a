"""How an error of a training script reaches the person: one line, once per machine, exit code 2."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tam_plugin import errors
from tam_plugin.errors import TamError

DEBUG = "TAM_DEBUG"
"""With this environment variable set, errors keep their traceback."""
OTHERS_WAIT_S = 60.0
"""What the other ranks of a machine wait before they speak: after rank 0 failed too, its launcher ends them by then."""

_OF_A_WORKER = re.compile(r"Original Traceback.*\n[\w.]+: ", re.DOTALL)


def install() -> None:
    """Report every :class:`TamError` that ends this process in one line; a second call does nothing.

    Other errors keep their traceback.
    """
    if os.environ.get(DEBUG, "0") in ("", "0") and not isinstance(sys.excepthook, _Hook):
        sys.excepthook = _Hook(sys.excepthook)


class _Hook:
    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not isinstance(error, TamError):
            self.before(kind, error, trace)
            return
        report(error)
        raise SystemExit(2)  # from here it becomes the exit code


def report(error: TamError) -> None:
    """Print the line; a rank other than the machine's first waits, since it is most likely the same error there."""
    rank = int(os.environ.get("LOCAL_RANK") or 0)
    if rank:
        time.sleep(OTHERS_WAIT_S)
    who = f" (rank {os.environ.get('RANK', rank)})" if rank else ""
    # torch.distributed puts a hook around this one that keeps what goes to sys.stderr until this one returns.
    print(f"{Path(sys.argv[0]).name}{who}: {one_line(error)}", file=sys.__stderr__ or sys.stderr, flush=True)


def one_line(error: BaseException) -> str:
    """The message on one line; of an error of a data loader's worker, the message that it had there."""
    text = str(error.args[0]) if error.args else str(error)  # as it is: the text of ours is one line already
    last = _OF_A_WORKER.search(text)
    return errors.one_line(text[last.end() :] if last else error)
