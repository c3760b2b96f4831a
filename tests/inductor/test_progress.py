"""What training writes to disk: word vectors in 4 bits, and the progress of a run that is killed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from tam_plugin.inductor.fitting import FitOptions
from tam_plugin.inductor.storage import load_weights, save_weights


def test_word_vectors_in_four_bits_come_back_and_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tam_plugin.inductor import storage

    monkeypatch.setattr(storage, "_BLOCKS_FROM", 5)
    torch.manual_seed(0)
    weight = torch.randn(6, 64)
    weight[2] = 0
    save_weights(tmp_path / "a.safetensors", {"word_embeddings.weight": weight})
    once = load_weights(tmp_path / "a.safetensors")["word_embeddings.weight"]
    peak = weight.reshape(6, 2, 32).abs().amax(2, keepdim=True)
    assert ((once - weight).reshape(6, 2, 32).abs() <= peak / 8 * 1.01).all()
    assert ((once - weight).abs().mean(), 0) < (0.1, 1) and not once[2].any()
    save_weights(tmp_path / "b.safetensors", {"word_embeddings.weight": once})
    assert torch.equal(load_weights(tmp_path / "b.safetensors")["word_embeddings.weight"], once)
    assert (tmp_path / "a.safetensors").stat().st_size < 600


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tam_plugin.inductor import fitting
    from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

    sizes = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    options = FitOptions(epochs=3, batch_size=4)
    monkeypatch.setattr(fitting, "KEEP_STEPS", 2)

    def run(folder: Path | None, steps: int | None = None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        rng = random.Random(0)
        model = SentenceClassifier(EncoderConfig(intermediate_size=32, **sizes))
        told = []

        def draw() -> tuple[list[list[int]], torch.Tensor]:
            ids = [[rng.randrange(20) for _ in range(rng.randrange(2, 9))] for _ in range(18)]
            return ids, torch.eye(8)[[i[0] % 8 for i in ids]]

        def stop(step: int, *_: object) -> None:
            told.append(step)
            if step == steps:
                raise KeyboardInterrupt

        monkeypatch.setattr(fitting, "_report", stop)
        fitting.fit(model, draw, options, rng, folder)
        assert told[0] == (1 if folder is None else 9)  # killed at step 9, kept at step 8
        return {name: value.clone() for name, value in model.state_dict().items()}

    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", 9)
    resumed = run(tmp_path / "run")
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
