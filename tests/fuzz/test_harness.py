"""The harness tells apart what may become of an input, and keeps those that failed."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

from tam_plugin.errors import InputError

from .harness import Limits, Result, Verdict, main, right, wrong


def _endless() -> NoReturn:
    while True:
        pass


def _greedy() -> Result:
    return right(str(len(bytearray(4 << 30))))


def _refuses(message: str) -> Result:
    raise InputError(message)


class _TwoLines(InputError):
    def __str__(self) -> str:
        return "file a\nb: no video"


def _refuses_in_two_lines() -> Result:
    raise _TwoLines


ENDS = {
    "right": (right, Verdict.RIGHT, ""),
    "refused": (lambda: _refuses("file a: no video"), Verdict.REFUSED, "file a: no video"),
    "two lines": (_refuses_in_two_lines, Verdict.CRASHED, "not one line"),
    "wrong": (lambda: wrong("frame 3 shows 4"), Verdict.WRONG, "frame 3 shows 4"),
    "raises": (lambda: right({}["a"]), Verdict.CRASHED, "KeyError"),
    "aborts": (os.abort, Verdict.CRASHED, "SIGABRT"),
    "takes all memory": (_greedy, Verdict.CRASHED, "MemoryError"),
    "ends the process": (lambda: os._exit(3), Verdict.CRASHED, "code 3"),
    "never ends": (_endless, Verdict.HUNG, "no end within 0.5 s"),
}


class Ends:
    """Each of the ends, in turn."""

    name = "ends"
    columns = ("only",)
    limits = Limits(wall_s=0.5, memory_bytes=1 << 30)

    def __init__(self, ends: list[str]) -> None:
        self.ends = ends

    def make(self, number: int, rng: random.Random, folder: Path) -> str:
        (folder / "input").write_text(f"{self.ends[number]} {rng.random()}")
        return self.ends[number]

    def check(self, folder: Path, column: str) -> Result:
        return ENDS[(folder / "input").read_text().rpartition(" ")[0]][0]()


def run(fuzzer: Ends, folder: Path, *options: str) -> int:
    return main(fuzzer, ["--cases", str(len(fuzzer.ends)), "--keep", str(folder), *options])


@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_told_from_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str], end: str) -> None:
    _, verdict, detail = ENDS[end]
    assert run(Ends([end]), tmp_path) == int(verdict.is_fault)
    header, counts = capsys.readouterr().out.split("could not be made\n")[1].splitlines()[:2]
    assert header.split() == ["right", "refused", "damage", "reported", "wrong", "crashed", "hung"]
    assert counts.split() == ["only", *(str(int(each is verdict)) for each in Verdict)]
    cases = list(tmp_path.rglob("case.json"))
    assert len(cases) == verdict.is_fault
    if cases:
        assert detail in json.loads(cases[0].read_text())["results"]["only"]["detail"]
        assert main(Ends([]), ["--replay", str(cases[0].parent)]) == 1
        assert f"only: {verdict.value}: " in capsys.readouterr().out


def test_a_case_depends_on_its_seed_and_number_alone(tmp_path: Path) -> None:
    def made(folder: str, *options: str) -> dict[str, str]:
        run(Ends(["wrong"] * 3), tmp_path / folder, *options)
        return {path.parent.name: path.read_text() for path in (tmp_path / folder).rglob("input")}

    every = made("a")
    assert len(set(every.values())) == 3
    assert made("b", "--cases", "1", "--first", "2") == {"seed-0-case-2": every["seed-0-case-2"]}
    assert not set(made("c", "--seed", "1").values()) & set(every.values())


def test_children_of_a_hung_process_are_killed_with_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()  # open for writing for as long as any of them lives

    class Parent(Ends):
        def check(self, folder: Path, column: str) -> Result:
            subprocess.run(["sleep", "1000"], check=False, pass_fds=[writing])
            raise AssertionError

    run(Parent(["never ends"]), tmp_path)
    os.close(writing)
    assert select.select([reading], [], [], 30)[0]
    assert os.read(reading, 1) == b""
    os.close(reading)
