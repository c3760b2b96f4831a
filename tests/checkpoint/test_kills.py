"""A conversion again: what is finished is left alone, what is lost is made good. Kills are in tests/storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tam_plugin.checkpoint import open_source

from .conftest import digests, make_big, upcycle


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    return make_big(tmp_path_factory.mktemp("big"))


def test_a_finished_folder_is_left_alone(big: Path, tmp_path: Path, capsys):
    assert upcycle(big, tmp_path / "tam") == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tam").iterdir()}
    capsys.readouterr()
    assert upcycle(big, tmp_path / "tam", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["read_bytes"], said["written_bytes"]) == (0, 0)
    assert said["resumed"] == said["linked"] + said["written"]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tam").iterdir()} == before


def test_a_lost_shard_and_a_torn_journal_are_made_good(big: Path, tmp_path: Path):
    assert upcycle(big, tmp_path / "tam") == 0
    calm = digests(tmp_path / "tam")
    last = sorted((tmp_path / "tam").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:100])
    (tmp_path / "tam" / ".model-00001.part").write_bytes(b"a piece")
    assert upcycle(big, tmp_path / "tam") == 0
    assert digests(tmp_path / "tam") == calm
    journal = tmp_path / "tam" / "tam_upcycle.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert upcycle(big, tmp_path / "tam") == 0
    assert digests(tmp_path / "tam") == calm


def test_the_source_is_opened_once_and_closed(big: Path):
    source = open_source(big)
    source.close()
    source.close()
    assert len(source.shards) == 24 and len(source.holder) > 28
