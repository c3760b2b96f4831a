"""The proof: 2,000 queries, a server full of faults, five kills, and the files of a run that nothing disturbed."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from tests.inductor_tagging.conftest import make_rows, write
from tests.inductor_tagging.server import FAULTS, ChatServer
from tests.kill_harness import kill_when

COUNT, KILLS, CONCURRENCY, REASKS = 2000, 5, 16, 2
ARGV = ("--model", "r1", "--concurrency", str(CONCURRENCY), "--retry-wait", "0.01", "--max-reasks", str(REASKS))


def faulty(name: str, times: int) -> str | None:
    """One request in six fails, by its name and number; from the sixth on none, so that every query is answered."""
    draw = random.Random(f"{name} {times}")
    return draw.choice(FAULTS) if times < 5 and draw.random() < 1 / 6 else None


def stored(path: Path) -> list[dict]:
    """The answers in whole lines."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines[1:]]


def finished(answers: list[dict]) -> set[str]:
    """Names of the queries that need not be asked again."""
    bad = Counter(answer["id"] for answer in answers if answer["value"] is None)
    ids = {answer["id"] for answer in answers if answer["value"]} | {i for i, n in bad.items() if n > REASKS}
    return {i.replace("set/", "q") for i in ids}


@pytest.mark.slow
def test_five_kills_change_nothing_and_ask_nothing_twice(tmp_path, start, tam):
    write(tmp_path / "in.jsonl", make_rows(COUNT))
    with ChatServer() as calm:
        code, err = tam("tag", "in.jsonl", "--out", "calm.jsonl", "--base-url", calm.url, *ARGV)
    assert code == 0 and "1900 of 2000 queries" in err
    expected = {kind: (tmp_path / f"calm.jsonl{kind}").read_bytes() for kind in ("", ".rejected.jsonl")}

    rng = random.Random(7)
    store = tmp_path / "out.jsonl.answers.jsonl"
    with ChatServer(fault=faulty, delay_s=0.002) as server:
        argv = ("tag", "in.jsonl", "--out", "out.jsonl", "--base-url", server.url, *ARGV)
        asked_before: list[tuple[int, set[str], int]] = []
        marks = sorted(rng.sample(range(100, COUNT - 200), KILLS))
        for mark in marks:
            process = start(*argv)
            kill_when(process, lambda mark=mark: len(server.sent) >= mark)
            assert not (tmp_path / "out.jsonl").exists()
            answers = stored(store)
            # Whatever has an answer on the disk is in here; all later requests are in the log from here on.
            asked_before.append((len(server.asked), finished(answers), len(answers)))
        code, err = tam(*argv)
        assert code == 0, err
        log, sent = list(server.asked), list(server.sent)

    for kind, content in expected.items():
        assert (tmp_path / f"out.jsonl{kind}").read_bytes() == content
    for position, names, _ in asked_before:
        assert names and not names & set(log[position:])
    counts = [number for _, _, number in asked_before]
    assert counts == sorted(counts) and counts[-1] < len(stored(store))
    # Paid for twice is at most what was under way when the process died.
    assert 0 <= len(sent) - len(stored(store)) <= KILLS * CONCURRENCY
    assert len(log) > len(sent) * 1.1
