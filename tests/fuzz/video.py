"""Video files of many kinds, whole and tampered with, against every reader: does each frame show what it says?"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tam_plugin.errors import TamError
from tam_plugin.video import guest, open_video, sample_frames
from tam_plugin.video.reader import check_backend
from tests.fuzz.films import KINDS, Kind
from tests.fuzz.harness import Fuzzer, Limits, Result, aligned, check_case, in_process, parser_of, right, run, wrong
from tests.fuzz.mutations import tamper
from tests.fuzz.shown import (
    Shown,
    cells_of,
    judge_damaged,
    judge_whole,
    number_of,
    program_options,
    read_shown,
    write_shown,
)

READERS = ("pyav", "decord", "torchcodec")

_WHOLE_SHARE = 0.25
"""Share of the files that are left as they are."""


class Forked:
    """What ``subprocess.Popen`` does for ``python -c CODE``, without loading Python and its packages anew.

    Readers of other libraries run in a process of their own, which takes seconds to start; each check needs one.
    """

    def __init__(self, command: Sequence[str], **_: object) -> None:
        there, self_in = os.pipe()
        self_out, here = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            for target, source in ((0, there), (1, here), (2, os.open(os.devnull, os.O_WRONLY))):
                os.dup2(source, target)
            os.closerange(3, 256)
            sys.stdin = os.fdopen(0)
            try:
                exec(command[-1], {})
            finally:
                os._exit(0)
        os.close(there)
        os.close(here)
        self.stdin, self.stdout = os.fdopen(self_in, "wb"), os.fdopen(self_out, "rb")
        self._status: int | None = None

    def poll(self) -> int | None:
        """The exit code, once it has ended."""
        if self._status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if ended else None
        return self._status

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def kill(self) -> None:
        """End it."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_guests() -> None:
    """Let the readers' own processes start by a fork of this one, where their packages are loaded already."""
    guest.subprocess = SimpleNamespace(Popen=Forked, PIPE=None, DEVNULL=None)  # type: ignore[assignment]


class VideoFuzzer:
    """Video files of many kinds, whole and tampered with, against every reader that is installed."""

    name = "video"
    limits = Limits(wall_s=45, cpu_s=90)

    def __init__(
        self,
        films: Path,
        readers: Sequence[str],
        kinds: Sequence[Kind] = KINDS,
        whole_share: float = _WHOLE_SHARE,
    ) -> None:
        self.columns = readers
        self._films = films
        self._kinds = kinds
        self._whole_share = whole_share
        program_options()  # asked once, not in each process

    def make(self, number: int, rng: random.Random, folder: Path) -> str:
        """A film as ``film.…``, how to sample it as ``input.json``, and what players show of it."""
        kind = rng.choice(self._kinds)
        original = self._film(kind, rng.randrange(3))
        path = Path(shutil.copyfile(original, folder / f"film{kind.suffix}"))
        whole = rng.random() < self._whole_share
        done = "whole"
        if not whole:
            other = self._film(rng.choice(self._kinds), rng.randrange(3))
            path, done = tamper(path, other, rng)
            whole = path.read_bytes() == original.read_bytes() and path.suffix == original.suffix
        shown = read_shown(original.parent, original.name)
        size = rng.choice((None, None, 96, [64, 200]))
        sampling = {"num_frames": rng.choice((1, 4, 13, 32, 100)), "size": size, "snap": rng.random() < 0.15}
        truth = original.with_name(f"{original.name}.truth").exists()
        case = {"film": path.name, "whole": whole, "truth": truth, **sampling}
        (folder / "input.json").write_text(json.dumps(case) + "\n")
        if whole:
            for name in shown:
                shutil.copyfile(original.with_name(f"{original.name}-{name}.npz"), folder / f"shown-{name}.npz")
        else:
            write_shown(path, folder, "shown")
        shown["libav"].save(folder / "original-libav.npz")
        return f"{kind.name}, {done}"

    def check(self, folder: Path, column: str) -> Result:
        """Open the film, ask what it is and sample it by the reader ``column``."""
        case = json.loads((folder / "input.json").read_text())
        path = folder / case["film"]
        size = tuple(case["size"]) if isinstance(case["size"], list) else case["size"]  # JSON knows no tuples
        try:
            with open_video(path) as opened:
                info = opened.info
                sampler = "keyframe" if case["snap"] else "uniform"
                video = opened.sample(case["num_frames"], sampler=sampler, backend=column, size=size)
        except TamError as error:
            if case["whole"] and column == "pyav":
                return wrong(f"a whole file is refused: {error}")
            raise
        shown = read_shown(folder, "shown")
        if case["whole"]:
            if case["truth"] and (info.num_frames, info.duration_s) != (video.info.num_frames, video.info.duration_s):
                return wrong(f"probed {info}, sampled {video.info}")
            if not case["snap"]:
                return judge_whole(video, case["num_frames"], shown)
        return judge_damaged(video, shown, Shown.load(folder / "original-libav.npz"))

    def _film(self, kind: Kind, variant: int) -> Path:
        """A film, made once."""
        name = f"{hashlib.sha256(kind.name.encode()).hexdigest()[:12]}-{variant}"
        path = self._films / f"{name}{kind.suffix}"
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=self._films) as scratch:
                made = Path(scratch, path.name)
                truth = kind.make(made, random.Random(f"{kind.name}/{variant}"))
                write_shown(made, Path(scratch), path.name)
                for name, shown in read_shown(Path(scratch), path.name).items():
                    if truth is not None and shown.numbers != list(truth):
                        raise AssertionError(
                            f"{kind.name}: {name} shows {shown.numbers[:20]}, expected {list(truth)[:20]}"
                        )
                if truth is not None:
                    made.with_name(f"{made.name}.truth").touch()
                for each in Path(scratch).iterdir():
                    if each != made:
                        each.rename(self._films / each.name)
                made.rename(path)
        return path


# -- the table of odd files -------------------------------------------------------------------------------------------


def odd_files() -> Path | None:
    """The folder of odd files in the shared data, where it is at hand."""
    repository = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("TAM_SHARED_DATA", repository.parent / "shared" / "data")) / "videos" / "odd"
    return folder if (folder / "truth.json").exists() else None


class OddFiles:
    """Files whose right numbers and duration are written down beside them; a case's folder is the file itself."""

    name = "video"
    limits = VideoFuzzer.limits

    def __init__(self, readers: Sequence[str], truth: dict[str, dict[str, Any]]) -> None:
        self.columns = readers
        self._truth = truth

    def make(self, number: int, rng: random.Random, folder: Path) -> str:
        """Nothing: the files are there."""
        raise NotImplementedError

    def check(self, folder: Path, column: str) -> Result:
        """All frames, and nine."""
        truth = self._truth[folder.name]
        numbers = np.array(truth["numbers"])
        for num_frames in (len(numbers), 9):
            video = sample_frames(folder, num_frames, backend=column)
            expected = numbers[np.linspace(0, len(numbers) - 1, min(num_frames, len(numbers)), dtype=int)].tolist()
            read = [number_of(cells_of(frame)) for frame in video.frames]
            if read != expected:
                return wrong(f"{read[:10]} instead of {expected[:10]}")
            if video.damaged_frames:
                return wrong(f"damage is reported where there is none: {video.damaged_frames[:8]}")
            if abs(video.info.duration_s - truth["duration_s"]) > 0.05:
                return wrong(f"{video.info.duration_s:.2f} s instead of {truth['duration_s']:.2f} s")
        return right()


def table(readers: Sequence[str], films: Path, seed: int) -> int:
    """Print what each reader does with each odd file and each kind of whole film; returns the exit code."""
    rows, remarks, faults = [["file", *readers]], [], 0

    def add(name: str, fuzzer: Fuzzer, folder: Path) -> None:
        nonlocal faults
        results = [check_case(fuzzer, folder, reader)[0] for reader in readers]
        rows.append([name, *(result.verdict.value for result in results)])
        remarks.extend(
            f"{name}, {reader}: {result.verdict.value}: {result.detail}"
            for reader, result in zip(readers, results, strict=True)
            if result.detail
        )
        faults += sum(result.verdict.is_fault for result in results)

    if odd := odd_files():
        truth = json.loads((odd / "truth.json").read_text())
        for name in sorted(truth):
            add(name, OddFiles(readers, truth), odd / name)
    else:
        remarks.append("the odd files of the shared data are left out: set TAM_SHARED_DATA")
    for kind in KINDS:
        fuzzer = VideoFuzzer(films, readers, [kind], whole_share=1)
        folder = Path(tempfile.mkdtemp(dir=films))
        made = in_process(partial(fuzzer.make, 0, random.Random(seed), folder), fuzzer.limits)
        if made.fault:
            rows.append([kind.name, *["not made"] * len(readers)])
            remarks.append(f"{kind.name}: {made.fault.detail}")
        else:
            add(kind.name, fuzzer, folder)
    print(aligned(rows), *remarks, sep="\n")
    return int(faults > 0)


def installed_readers(wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that load; says which are left out, and why."""
    found = []
    for reader in wanted:
        try:
            check_backend(reader)
        except TamError as error:
            print(f"left out: {error}", file=sys.stderr)
        else:
            found.append(reader)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = parser_of(VideoFuzzer.name, __doc__ or "")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=READERS, help="readers to check (default all)")
    parser.add_argument("--table", action="store_true", help="print a table of readers and whole files, and end")
    options = parser.parse_args(arguments)
    readers = installed_readers(options.readers)
    fork_guests()
    with tempfile.TemporaryDirectory(prefix="tam-films-") as films:
        if options.table:
            return table(readers, Path(films), options.seed)
        return run(VideoFuzzer(Path(films), readers), options)


if __name__ == "__main__":
    sys.exit(main())
