"""The fuzz command of replies: a few cases hold, and a client that stores what it is told is found out."""

from __future__ import annotations

import pytest

from .harness import main
from .replies import Replies


@pytest.fixture
def few(tmp_path):
    """The command for a few cases of a seed without slow ones."""
    return lambda: main(Replies(), ["--seed", "5", "--cases", "2", "--keep", str(tmp_path)])


def test_a_few_cases(few, capsys):
    assert few() == 0
    counts = [line.split()[1:] for line in capsys.readouterr().out.splitlines() if line.startswith(("tag", "para"))]
    assert len(counts) == 2 and all(int(right) + int(refused) == 2 for right, refused, *_ in counts)


def test_a_client_that_believes_every_count_is_found_out(few, capsys, monkeypatch):
    monkeypatch.setattr("tam_plugin.inductor.tagging.client.token_count", lambda value: value)
    assert few() == 1
    assert "token count" in capsys.readouterr().out
