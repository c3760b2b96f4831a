"""Journals: torn at every byte, damaged, of another run, held by another process, on a full disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys

import pytest

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.storage import (
    Journal,
    json_line,
    locked,
    put_aside,
    rank_of,
    rank_path,
    rank_paths,
    read_journal,
)

HEADER = {"of": "this", "options": {"seed": 1}, "files": [["a", 3]]}
RECORDS = [{"n": 0}, {"text": "läuft\u2028 \x85 \ud800 \n"}, {"n": 2, "long": "x" * 300}]


def fill(path):
    with Journal(path, HEADER) as journal:
        return [journal.append(record) for record in RECORDS]


def records(path):
    with Journal(path, HEADER) as journal:
        return [line.record for line in journal.lines()]


def test_records_come_back_by_order_and_by_place(tmp_path):
    starts = fill(tmp_path / "j")
    content = (tmp_path / "j").read_bytes()
    assert len(content.decode("utf-8").splitlines()) == 1 + len(RECORDS)  # no character in a record ends a line
    with Journal(tmp_path / "j", HEADER) as journal:
        lines = list(journal.lines())
        assert [line.start for line in lines] == starts and [line.number for line in lines] == [2, 3, 4]
        assert [line.record for line in lines] == RECORDS == [journal.record(start) for start in starts]
        assert journal.append({"n": 3}, {"n": 4}) == len(content)
    assert [line.record for line in read_journal(tmp_path / "j")] == [HEADER, *RECORDS, {"n": 3}, {"n": 4}]


def test_a_kill_at_any_byte_loses_the_torn_line_alone(tmp_path):
    fill(tmp_path / "whole")
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "cut"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n")
        assert len(list(read_journal(path))) == kept and path.read_bytes() == whole[:size]  # reading changes nothing
        assert records(path) == RECORDS[: max(0, kept - 1)]
        assert path.read_bytes() == b"".join(whole.splitlines(True)[: max(1, kept)])


def test_a_torn_line_longer_than_a_block_is_cut(tmp_path):
    fill(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + b'{"id": "' + b"x" * 200_000)
    assert records(tmp_path / "j") == RECORDS and (tmp_path / "j").read_bytes() == whole


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({**HEADER, "of": "that"}, "of is 'that', was 'this'"),
        ({**HEADER, "options": {"seed": 2}}, r"options\.seed is 2, was 1"),
        ({**HEADER, "files": [["a", 4]]}, r"files\[0\]\[1\] is 4, was 3"),
        ({**HEADER, "more": 1}, "more is 1, was None"),
        ({"of": "this"}, r"files is None, was \[\['a', 3\]\]"),
    ],
)
def test_another_run_is_refused_with_what_differs(tmp_path, now, words):
    fill(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    with pytest.raises(InputError, match=rf"j' belongs to another run: {words}; resume that one, or name another"):
        Journal(tmp_path / "j", now)
    assert (tmp_path / "j").read_bytes() == before
    put_aside(tmp_path / "j")
    with Journal(tmp_path / "j", now) as journal:
        assert list(journal.lines()) == []
    assert (tmp_path / "j.old").read_bytes() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"what\n", "damaged"),
        (b"[1]\n", "found list"),
        (b"\0\0\0\n", "damaged"),
        (b"\xff\n", "utf-8"),
        (b"\n", "damaged"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, words):
    fill(tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().splitlines(True)
    (tmp_path / "j").write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(InputError, match=rf"j:3: damaged .*{words}|j:3: damaged \(") as caught:
        records(tmp_path / "j")
    assert words in str(caught.value) and str(caught.value).isprintable()


def test_what_is_no_journal_is_left_alone(tmp_path):
    (tmp_path / "j").write_bytes(b"some text\n")
    with pytest.raises(InputError, match="j:1: damaged"):
        Journal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == b"some text\n"
    with pytest.raises(InputError, match="larger than 5 bytes"):
        list(read_journal(tmp_path / "j", max_bytes=5))
    with pytest.raises(FileNotFoundError):
        list(read_journal(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        list(read_journal(tmp_path / "pipe"))


HOLD = "import sys; from tam_plugin.storage import {0}\nwith {0}(sys.argv[1]{1}): print('held', flush=True); input()"


@pytest.mark.parametrize(("holder", "more"), [("Journal", ""), ("locked", ", alternative='x'")])
def test_one_holder_at_a_time_and_the_error_names_it(tmp_path, holder, more):
    path = tmp_path / "j"

    def take():
        with Journal(path) if holder == "Journal" else locked(path, alternative="name another file"):
            return True

    command = [sys.executable, "-c", HOLD.format(holder, more), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        named = rf"in use by another process \(process {other.pid}\): wait for it, end it, or name another file"
        with pytest.raises(InputError, match=named):
            take()
        other.kill()
        other.wait()
        assert take()


def test_a_lock_ends_with_its_holder_though_a_child_lives(tmp_path):
    reading, writing = os.pipe()
    with Journal(tmp_path / "j") as journal:
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
        journal.append({"n": 1})
    with Journal(tmp_path / "j"):
        pass
    os.write(writing, b"x")
    os.waitpid(child, 0)


def test_two_processes_that_wait_add_whole_lines(tmp_path):
    code = (
        "import sys; from tam_plugin.storage import Journal\nfor n in range(40):\n"
        "    with Journal(sys.argv[1], wait=True) as journal: journal.append({'who': sys.argv[2], 'n': n})"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "j", who]) for who in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    found = [line.record for line in read_journal(tmp_path / "j")]
    assert [r["n"] for r in found if r["who"] == "a"] == [r["n"] for r in found if r["who"] == "b"] == list(range(40))


def test_a_full_disk_is_one_clear_error_and_leaves_whole_lines(tmp_path):
    code = (
        "import resource, sys; from tam_plugin.errors import InputError; from tam_plugin.storage import Journal\n"
        "with Journal('j', {'of': 'this'}) as journal:\n"
        "    for n in range(100):\n"
        "        try: journal.append({'n': n, 'text': 'x' * 100})\n"
        "        except InputError as error: print(error); break\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))\n"
        "    journal.append({'n': 'last'})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY)),
    )
    assert done.stdout == (
        "'j' cannot be written: file too large; raise the limit on the size of files (ulimit -f), or write to a file "
        "system that takes larger ones\n"
    )
    found = [line.record for line in read_journal(tmp_path / "j")]
    assert [record.get("n") for record in found] == [None, *range(len(found) - 2), "last"] and len(found) > 5


def test_a_file_system_without_locks_is_a_notice(tmp_path, monkeypatch):
    """The call fails as on a file system that is mounted without locks."""
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(TamNotice, match="has no locks"), Journal(tmp_path / "j", HEADER) as journal:
        journal.append({"n": 1})
    assert len(list(read_journal(tmp_path / "j"))) == 2


def test_files_of_several_processes_stand_beside_one_another(tmp_path):
    first = tmp_path / "log.jsonl"
    ranks = [rank_path(first, rank) for rank in range(11)]
    for path in [*ranks, tmp_path / "log.rank.jsonl", tmp_path / "other.rank1.jsonl"]:
        path.touch()
    assert rank_paths(first) == ranks and ranks[10].name == "log.rank10.jsonl"
    assert [rank_of(path) for path in ranks] == [(first, rank) for rank in range(11)]


@pytest.mark.parametrize("record", [{}, {"a": "\x85\u2028\u2029\r\n\x1c"}, {"ключ": "значение"}, {"half": "\udfff"}])
def test_a_line_is_json_for_any_reader(record):
    line = json_line(record)
    assert line.endswith(b"\n") and len(line.decode("utf-8").splitlines()) == 1 and json.loads(line) == record
