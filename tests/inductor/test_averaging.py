"""Averages of compact Inductors: their weights' mean, and what does not belong together."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tam_plugin.cli.main import main
from tam_plugin.inductor import Inductor, storage
from tam_plugin.inductor.doubt import Doubt
from tam_plugin.inductor.model import DEFAULT_FOLDER


@pytest.fixture
def pair(tmp_path):
    """The embedded Inductor, and a copy with other weights and another temperature."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        shutil.copytree(DEFAULT_FOLDER, folder)
    state = storage.load_weights(second / storage.WEIGHTS_FILE)
    storage.save_weights(second / storage.WEIGHTS_FILE, {name: 0.5 * t for name, t in state.items()})
    for folder, least, own in ((first, 0.2, {}), (second, 0.3, {"tam_temperature": 2.0})):
        config = json.loads((folder / "config.json").read_text())
        doubt = {"max_entropy": least, "max_unknown_share": 0.5}
        (folder / "config.json").write_text(json.dumps({**config, "tam_doubt": doubt, **own}))
    return first, second


def test_it_is_the_mean_of_weights_and_temperatures(pair, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["inductor", "average", *map(str, pair), "--out", str(out)]) == 0
    one, both = (storage.load_weights(folder / storage.WEIGHTS_FILE) for folder in (pair[0], out))
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, 0.75 * one[name], atol=0.01 * float(one[name].abs().max()), rtol=0)
    temperatures = [json.loads((folder / "config.json").read_text())["tam_temperature"] for folder in (*pair, out)]
    assert temperatures[2] == pytest.approx(sum(temperatures[:2]) / 2, abs=1e-4)
    assert Inductor.from_pretrained(out).doubt == Doubt(max_entropy=0.25, max_unknown_share=0.5)
    assert sum(Inductor.from_pretrained(out).classify("What colour is it?").probabilities) == pytest.approx(1)


def test_what_does_not_belong_together_is_refused(pair, tmp_path, capsys):
    assert main(["inductor", "average", str(pair[0]), "--out", str(tmp_path / "out")]) == 2
    assert "1 Inductor given: expected two or more" in capsys.readouterr().err
    config = json.loads((pair[1] / "config.json").read_text())
    (pair[1] / "config.json").write_text(json.dumps({**config, "tam_use_options": False}))
    assert main(["inductor", "average", *map(str, pair), "--out", str(tmp_path / "out")]) == 2
    assert "tam_use_options = False" in capsys.readouterr().err
    assert main(["inductor", "average", *map(str, pair), "--out", str(pair[0])]) == 2
    assert "holds a checkpoint; name another folder" in capsys.readouterr().err
