"""The store: another maker, two holders, and waiting for the disk; torn lines are tested in tests/storage."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from tam_plugin.errors import InputError
from tam_plugin.inductor.tagging.answers import AnswerStore

HEADER = {"model": "a", "prompt": "tag-1"}


def fill(path, count):
    async def append(store):
        await asyncio.gather(*(store.append({"id": str(i), "value": {"n": "é"}}) for i in range(count)))

    with AnswerStore(path, HEADER) as store:
        asyncio.run(append(store))


def ids(path):
    with AnswerStore(path, HEADER) as store:
        return [answer["id"] for answer in store.read()]


def test_answers_come_back_in_order(tmp_path):
    fill(tmp_path / "s", 50)
    assert ids(tmp_path / "s") == [str(i) for i in range(50)]


def test_an_answer_is_on_the_disk_when_append_returns(tmp_path):
    async def check(store):
        for i in range(5):
            await store.append({"id": str(i)})
            assert len((tmp_path / "s").read_bytes().splitlines()) == i + 2

    with AnswerStore(tmp_path / "s", HEADER) as store:
        asyncio.run(check(store))


def test_a_cancelled_append_is_written_all_the_same(tmp_path):
    async def check(store):
        task = asyncio.create_task(store.append({"id": "x"}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.flush()

    with AnswerStore(tmp_path / "s", HEADER) as store:
        asyncio.run(check(store))
    assert ids(tmp_path / "s") == ["x"]


@pytest.mark.parametrize("name", sorted(HEADER))
def test_another_header_is_refused_and_restart_keeps_the_old_one(tmp_path, name):
    path = tmp_path / "s"
    fill(path, 2)
    old = path.read_bytes()
    other = {**HEADER, name: "b"}
    with pytest.raises(InputError, match=rf"another run: {name} is 'b', was '{HEADER[name]}'.*--restart"):
        AnswerStore(path, other)
    assert path.read_bytes() == old
    with AnswerStore(path, other, restart=True) as store:
        assert list(store.read()) == []
    assert (tmp_path / "s.old").read_bytes() == old
    assert json.loads(path.read_text())[name] == "b"


@pytest.mark.parametrize(
    ("line", "words"), [(b"what\n", "s:2: damaged"), (b"[1]\n", "s:2: damaged"), (b'{"no": "id"}\n', "s:2: damaged")]
)
def test_a_damaged_line_is_named(tmp_path, line, words):
    fill(tmp_path / "s", 1)
    lines = (tmp_path / "s").read_bytes().splitlines(True)
    (tmp_path / "s").write_bytes(lines[0] + line + lines[1])
    with pytest.raises(InputError, match=words):
        ids(tmp_path / "s")


@pytest.mark.parametrize("content", [b'{"format": "x"}\n', b"not JSON\n", b'{"id": 1}\n'])
def test_another_file_is_left_alone(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(InputError):
        AnswerStore(tmp_path / "s", HEADER)
    assert (tmp_path / "s").read_bytes() == content


@pytest.mark.parametrize("restart", [False, True])
def test_one_holder_at_a_time(tmp_path, restart):
    fill(tmp_path / "s", 1)
    with AnswerStore(tmp_path / "s", HEADER), pytest.raises(InputError, match="another process"):
        AnswerStore(tmp_path / "s", HEADER, restart=restart)
    assert ids(tmp_path / "s") == ["0"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    with AnswerStore(tmp_path / "s", HEADER) as store:
        full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115
        os.dup2(full.fileno(), store.journal.descriptor)
        full.close()
        with pytest.raises(InputError, match=r"cannot be written.*free some space.*resumes from"):
            asyncio.run(store.append({"id": "1"}))
