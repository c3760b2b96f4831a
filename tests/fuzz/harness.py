"""The harness of the fuzz commands: seeded cases, a process with limits for each check, counts, a folder for replay.

A fuzzer has two parts. ``make`` writes a case's input into an empty folder; ``check`` looks at nothing but that folder
and says what the code under test did with it. Both run in a forked process of their own, which may abort, run out of
memory or never end. What a process must not inherit half-done (threads, decoders, open files) must therefore not be
started in the parent: import modules before :func:`main`, and do all work in ``make`` and ``check``.

    class Names:
        name = "names"
        columns = ("plan",)
        limits = Limits(wall_s=10)

        def make(self, number: int, rng: random.Random, folder: Path) -> str:
            (folder / "name").write_text(rng.choice(["a", "b"]))
            return "a name"

        def check(self, folder: Path, column: str) -> Result:
            ...  # a TamError of one line counts as refused, any other exception as crashed
            return right()

    if __name__ == "__main__":
        sys.exit(main(Names()))

Case ``number`` of ``--seed S`` is the same on every run, whatever came before it.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn, Protocol

from tam_plugin.errors import TamError


class Verdict(str, Enum):
    """What the code under test did with an input."""

    RIGHT = "right"
    REFUSED = "refused"
    DAMAGE = "damage reported"
    WRONG = "wrong"
    CRASHED = "crashed"
    HUNG = "hung"

    @property
    def is_fault(self) -> bool:
        """Whether it must never happen, whatever the input."""
        return self in (Verdict.WRONG, Verdict.CRASHED, Verdict.HUNG)


@dataclass(frozen=True)
class Result:
    """A verdict, and in words what it rests on."""

    verdict: Verdict
    detail: str = ""


def right(detail: str = "") -> Result:
    """The input was used, and what came out is right."""
    return Result(Verdict.RIGHT, detail)


def wrong(detail: str) -> Result:
    """The input was used, and what came out is not what it says."""
    return Result(Verdict.WRONG, detail)


@dataclass(frozen=True)
class Limits:
    """What one process may take.

    Attributes:
        wall_s: seconds by the clock; beyond, the process and its children are killed and count as hung.
        cpu_s: seconds of processor time of all its threads.
        memory_bytes: address space beyond what the process starts with.
        file_bytes: size of any file that it writes.
    """

    wall_s: float = 60.0
    cpu_s: int = 120
    memory_bytes: int = 3 << 30
    file_bytes: int = 1 << 30


class Fuzzer(Protocol):
    """Makes inputs and checks what becomes of them.

    Attributes:
        name: names the folder that failing inputs are kept in.
        columns: ways to use each input (readers, commands); each is checked in a process of its own.
        limits: of each process.
    """

    name: str
    columns: Sequence[str]
    limits: Limits

    def make(self, number: int, rng: random.Random, folder: Path) -> str | tuple[str, Sequence[str]]:
        """Write the input of case ``number`` into the empty ``folder``.

        Returns:
            What it is, in a few words; with the columns that it is for, where it is not for all of them.
        """

    def check(self, folder: Path, column: str) -> Result:
        """Use the input in ``folder`` by way of ``column``; everything that is needed lies in the folder.

        Raises:
            TamError: the input is refused.
        """


# -- one process ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a process ended: what the function in it returned, or why it did not."""

    value: Any = None
    fault: Result | None = None
    output: str = ""


def in_process(function: Callable[[], Any], limits: Limits) -> Ended:
    """Run ``function`` in a forked process with ``limits``.

    Returns:
        What it returned, which must be JSON; or, where it raised, was killed or ran too long, the verdict for that. A
        :class:`TamError` of one line is :attr:`Verdict.REFUSED`.
    """
    with tempfile.TemporaryFile() as said:
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _child(function, limits, writing, said.fileno())
        os.close(writing)
        try:
            answer, in_time = _answer(reading, time.monotonic() + limits.wall_s)
            if not in_time:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGUSR1)  # faulthandler writes where it stands
                time.sleep(0.3)
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        said.seek(0)
        output = said.read(1 << 16).decode("utf-8", "replace")
    if not in_time:
        return Ended(fault=Result(Verdict.HUNG, f"no end within {limits.wall_s:g} s"), output=output)
    try:
        kind, value = json.loads(answer)
    except ValueError:
        return Ended(fault=_killed(status, limits), output=output)
    if kind == "returned":
        return Ended(value=value, output=output)
    return Ended(fault=Result(Verdict(kind), value), output=output)


def _answer(reading: int, deadline: float) -> tuple[bytes, bool]:
    """What the child writes before it closes its end, and whether it did so in time."""
    parts = []
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        part = os.read(reading, 1 << 16)
        if not part:
            return b"".join(parts), True
        parts.append(part)
    return b"".join(parts), False


def _killed(status: int, limits: Limits) -> Result:
    if not os.WIFSIGNALED(status):
        return Result(Verdict.CRASHED, f"the process ended with code {os.waitstatus_to_exitcode(status)}")
    number = os.WTERMSIG(status)
    if number == signal.SIGXCPU:
        return Result(Verdict.HUNG, f"more than {limits.cpu_s} s of processor time")
    return Result(Verdict.CRASHED, f"killed by {signal.Signals(number).name}")


def _child(function: Callable[[], Any], limits: Limits, writing: int, output: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, target)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with open(2, "w", closefd=False) as stderr:
            faulthandler.enable(stderr)
            faulthandler.register(signal.SIGUSR1, stderr, all_threads=True)
            _limit(limits)
            answer = _outcome(function)
        os.set_blocking(writing, True)
        with open(writing, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
        code = 0
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _outcome(function: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "returned", function()
    except TamError as error:
        text = str(error)
        if len(text.splitlines()) == 1:
            return Verdict.REFUSED.value, text
        return Verdict.CRASHED.value, f"a message that is not one line: {text!r}"
    except BaseException as error:
        traceback.print_exc()
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "tests/fuzz" not in f.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
        return Verdict.CRASHED.value, f"{place}{type(error).__name__}: {str(error)[:500]}"


def _limit(limits: Limits) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_AS, taken + limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


# -- all cases --------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts by column and verdict, and what was kept for replay."""

    columns: Sequence[str]
    cases: int = 0
    not_made: int = 0
    counts: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    kept: list[Path] = field(default_factory=list)

    @property
    def faults(self) -> int:
        """Checks that ended as they never may."""
        return sum(count for (_, verdict), count in self.counts.items() if verdict.is_fault)

    def table(self) -> str:
        """The counts, a row per column."""
        rows = [["", *(verdict.value for verdict in Verdict)]]
        rows += [[column, *(str(self.counts[column, verdict]) for verdict in Verdict)] for column in self.columns]
        return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """``rows`` as lines of columns of even width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def check_case(fuzzer: Fuzzer, folder: Path, column: str) -> tuple[Result, str]:
    """The verdict on the input in ``folder`` by way of ``column``, and what the process printed."""

    def check() -> list[str]:
        result = fuzzer.check(folder, column)
        return [result.verdict.value, result.detail]

    ended = in_process(check, fuzzer.limits)
    return ended.fault or Result(Verdict(ended.value[0]), ended.value[1]), ended.output


def fuzz(fuzzer: Fuzzer, *, seed: int, first: int, cases: int | None, seconds: float | None, keep: Path) -> Tally:
    """Make and check cases ``first``, ``first`` + 1, … until ``cases`` are done or ``seconds`` are over.

    An input on which any check ends as it never may is moved to a folder below ``keep``, with ``case.json`` beside it.
    Ctrl-C ends the run early; what was counted until then is returned.
    """
    tally = Tally(fuzzer.columns)
    gc.freeze()  # what is loaded stays shared with the processes
    started = shown = time.monotonic()
    with _scratch() as scratch, contextlib.suppress(KeyboardInterrupt):
        for number in _numbers(first, cases, started, seconds):
            folder = scratch / f"case-{number}"
            folder.mkdir()
            made = in_process(
                lambda number=number, folder=folder: fuzzer.make(number, random.Random(f"{seed}/{number}"), folder),
                fuzzer.limits,
            )
            tally.cases += 1
            if made.fault:
                tally.not_made += 1
                print(f"case {number}: the input could not be made ({made.fault.detail})", file=sys.stderr)
            else:
                what, columns = (made.value, fuzzer.columns) if isinstance(made.value, str) else made.value
                _check_all(fuzzer, folder, {"seed": seed, "number": number, "what": what}, columns, tally, keep)
            shutil.rmtree(folder, ignore_errors=True)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{shown - started:.0f} s: {tally.cases} cases, {tally.faults} faults", file=sys.stderr)
    return tally


def _check_all(
    fuzzer: Fuzzer, folder: Path, case: dict[str, Any], columns: Sequence[str], tally: Tally, keep: Path
) -> None:
    results = {}
    for column in columns:
        result, output = check_case(fuzzer, folder, column)
        tally.counts[column, result.verdict] += 1
        results[column] = {"verdict": result.verdict.value, "detail": result.detail, "output": output[-8000:]}
        if result.verdict.is_fault:
            detail = " ".join(result.detail.split())[:400]
            print(f"case {case['number']} ({case['what']}), {column}: {result.verdict.value}: {detail}")
    if any(Verdict(result["verdict"]).is_fault for result in results.values()):
        kept = keep / f"seed-{case['seed']}-case-{case['number']}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, kept)
        (kept / "case.json").write_text(json.dumps({**case, "results": results}, indent=1) + "\n")
        tally.kept.append(kept)


def _numbers(first: int, cases: int | None, started: float, seconds: float | None) -> Iterator[int]:
    number = first
    while (cases is None or number < first + cases) and (seconds is None or time.monotonic() - started < seconds):
        yield number
        number += 1


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tam-fuzz-") as name:
        yield Path(name)


def replay(fuzzer: Fuzzer, folder: Path) -> int:
    """Check a kept input again, by the columns that it was for; prints each verdict. Returns the number of faults."""
    faults = 0
    columns = json.loads((folder / "case.json").read_text())["results"]
    for column in (column for column in fuzzer.columns if column in columns):
        result, output = check_case(fuzzer, folder, column)
        print(f"{column}: {result.verdict.value}: {result.detail}")
        if result.verdict.is_fault:
            faults += 1
            print(output, file=sys.stderr)
    return faults


def parser_of(name: str, description: str) -> argparse.ArgumentParser:
    """The options that every fuzz command has; ``name`` is the fuzzer's."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.fuzz.{name}", description=description)
    parser.add_argument("--seconds", type=float, help="begin no case after this time (default 60, if no --cases)")
    parser.add_argument("--cases", type=int, metavar="N", help="end after N cases")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other cases (default 0)")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first case (default 0)")
    parser.add_argument(
        "--keep",
        type=Path,
        default=Path("fuzz-failures"),
        metavar="DIR",
        help="where inputs that failed are kept, a folder per case (default ./fuzz-failures)",
    )
    parser.add_argument("--replay", type=Path, metavar="FOLDER", help="check a kept input again, and nothing else")
    return parser


def run(fuzzer: Fuzzer, options: argparse.Namespace) -> int:
    """Do what ``options`` of :func:`parser_of` say; returns the exit code: 1 if anything failed, else 0."""
    if options.replay:
        return int(replay(fuzzer, options.replay) > 0)
    seconds = 60.0 if options.seconds is None and options.cases is None else options.seconds
    keep = options.keep / fuzzer.name
    tally = fuzz(fuzzer, seed=options.seed, first=options.first, cases=options.cases, seconds=seconds, keep=keep)
    print(f"{fuzzer.name}: {tally.cases} cases of seed {options.seed}, {tally.not_made} of them could not be made")
    print(tally.table())
    for folder in tally.kept:
        print(f"kept: python -m tests.fuzz.{fuzzer.name} --replay {folder}")
    return int(tally.faults > 0 or tally.not_made == tally.cases > 0)


def main(fuzzer: Fuzzer, arguments: Sequence[str] | None = None) -> int:
    """The command of ``fuzzer``; returns its exit code."""
    return run(fuzzer, parser_of(fuzzer.name, (type(fuzzer).__doc__ or "").partition("\n")[0]).parse_args(arguments))
