"""A job array plans the very bytes of one run."""

from __future__ import annotations

import pytest

from tam_plugin.plans import making as plans
from tests.plans.data import mixed_rows, plan_data, write


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "CHUNK_ROWS", 32)
    return write(tmp_path / "data.json", mixed_rows(150))


def contents(folder) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("total", [2, 3, 9])
def test_shards_join_to_the_bytes_of_one_run(data, tmp_path, total):
    """Nine shards of five chunks leave some with nothing to do."""
    assert plan_data(data, tmp_path / "whole") == 0
    out = tmp_path / "out"
    for number in reversed(range(1, total + 1)):
        assert plan_data(data, out, "--shard", f"{number}/{total}") == 0
        assert not (out / "plans.json").exists()
    assert plan_data(data, out, "--join") == 0
    assert contents(out) == contents(tmp_path / "whole")
    assert plan_data(data, out, "--shard", f"1/{total}") == 0  # all is done


@pytest.mark.slow
def test_missing_shards_are_named(data, tmp_path, capsys):
    out = tmp_path / "out"
    for number in (1, 4):
        assert plan_data(data, out, "--shard", f"{number}/4") == 0
    capsys.readouterr()
    assert plan_data(data, out) == 2
    assert "2 of 4 shards in " in (err := capsys.readouterr().err) and "with --shard 2/4, --shard 3/4 (" in err
    assert plan_data(data, out, "--shard", "1/2") == 2
    assert "holds shards of 4" in capsys.readouterr().err
    assert plan_data(data, out, "--shard", "2/4", "--newline-position", "frame") == 2
    assert (
        "shard 1/4 made with other settings: layout.newline_position is 'frame', was 'grid'" in capsys.readouterr().err
    )


def test_shards_do_not_mix_with_an_undivided_run(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert plan_data(data, out, "--shard", "1/2") == 0
    (out / "plans.journal.jsonl").touch()
    capsys.readouterr()
    assert plan_data(data, out) == 2
    assert "holds shards of 1 and of 2" in capsys.readouterr().err
