"""The learning-rate rule, the memory estimate and loss curves, against published figures and arithmetic."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.cli.main import main
from tam_plugin.errors import InputError
from tam_plugin.training.curves import read_curve, smoothed
from tam_plugin.training.memory import Step, estimate, zero_settings
from tam_plugin.training.recipe import scaled_learning_rate

NONE = {"hidden_size": 0, "intermediate_size": 0, "num_hidden_layers": 0, "vocab_size": 0}


def step(**more) -> Step:
    values = {
        "parameters": 7_500_000_000,
        "trainable": 7_500_000_000,
        "gpus": 64,
        "zero_stage": 0,
        "offload_optimizer": False,
        "offload_parameters": False,
        "checkpointing": True,
        "tokens": 0,
        "frames": 0,
        "patches": 0,
        "language": NONE,
        "vision": NONE,
    }
    return Step(**{**values, **more})


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(stage, gigabytes):
    """Figure 1 of Rajbhandari et al. 2020: 7.5 billion parameters on 64 GPUs, mixed-precision Adam."""
    assert estimate(step(zero_stage=stage))["gpu"] / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_offloading_moves_and_lora_saves_the_optimizer():
    whole = estimate(step(zero_stage=2))
    moved = estimate(step(zero_stage=2, offload_optimizer=True))
    assert moved["optimizer"] == 0 and moved["host_per_gpu"] == whole["optimizer"]
    lora = estimate(step(zero_stage=2, trainable=75_000_000))
    assert lora["optimizer"] == pytest.approx(whole["optimizer"] / 100)
    parted = estimate(step(zero_stage=3, offload_parameters=True))
    assert parted["weights"] == 0 and parted["host_per_gpu"] == 2 * 7.5e9 / 64


def test_activations_and_logits_by_hand():
    language = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 3, "vocab_size": 100}
    values = estimate(step(tokens=10, language=language))
    assert values["activations"] == 2 * 3 * 10 * 4 + 2 * 10 * (8 * 4 + 3 * 8)
    assert values["logits"] == 10 * 10 * 100
    assert estimate(step(tokens=10, language=language, checkpointing=False))["activations"] == 3 * 2 * 10 * 56


def test_settings_of_the_shipped_configurations():
    from tests.conftest import ROOT

    found = {name: zero_settings(json.loads((ROOT / "scripts" / f"{name}.json").read_text())) for name in CONFIGS}
    assert found == CONFIGS
    assert zero_settings(None) == {"zero_stage": 0, "offload_optimizer": False, "offload_parameters": False}


CONFIGS = {
    "zero1_offload": {"zero_stage": 1, "offload_optimizer": True, "offload_parameters": False},
    "zero2_offload": {"zero_stage": 2, "offload_optimizer": True, "offload_parameters": False},
    "zero3": {"zero_stage": 3, "offload_optimizer": True, "offload_parameters": False},
}


@given(st.floats(1e-7, 1.0), st.integers(1, 4096))
def test_four_times_the_batch_is_twice_the_rate(base, batch_size):
    rate = scaled_learning_rate(base, batch_size)
    assert scaled_learning_rate(base, 4 * batch_size) == pytest.approx(2 * rate)
    assert scaled_learning_rate(base, 32) == base
    assert math.isclose(rate**2 * 32, base**2 * batch_size, rel_tol=1e-9)


def test_the_command_prints_the_rate(capsys):
    assert main(["recipe", "learning-rate", "2.5e-5", "--batch-size", "128"]) == 0
    assert capsys.readouterr().out == "5e-05\n"
    assert main(["recipe", "learning-rate", "2.5e-5", "--batch-size", "0"]) == 2
    assert "batch_size = 0: expected a positive number" in capsys.readouterr().err


def write_run(folder, losses):
    folder.mkdir(parents=True)
    rows = [{"step": n, "loss": loss + 1, "L_ori": loss} for n, loss in enumerate(losses, 1)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": [*rows, {"train_loss": 1.0, "step": 9}]}))


def test_curves_are_read_from_a_run_or_its_last_checkpoint(tmp_path, capsys):
    write_run(tmp_path / "a" / "checkpoint-9", [3.0, 2.0])
    write_run(tmp_path / "a" / "checkpoint-10", [3.0, 2.0, 1.0])
    assert read_curve(tmp_path / "a") == ([1, 2, 3], [3.0, 2.0, 1.0])
    write_run(tmp_path / "b", [1.0])
    assert read_curve(tmp_path / "b") == ([1], [1.0])
    pytest.importorskip("matplotlib")
    figure = tmp_path / "figures" / "curves.png"
    assert main(["recipe", "curves", f"one={tmp_path / 'a'}", f"two={tmp_path / 'b'}", "--out", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["recipe", "curves", str(tmp_path / "a"), "--out", str(figure)]) == 2
    with pytest.raises(InputError, match=r"holds no trainer_state\.json: expected the output folder"):
        read_curve(tmp_path)


@given(st.lists(st.floats(0, 10), min_size=1), st.floats(0, 0.95))
def test_smoothing_stays_within_the_values(losses, weight):
    found = smoothed(losses, weight)
    assert found[0] == pytest.approx(losses[0])
    assert all(min(losses) - 1e-9 <= value <= max(losses) + 1e-9 for value in found)
    assert smoothed(losses, 0) == pytest.approx(losses)
