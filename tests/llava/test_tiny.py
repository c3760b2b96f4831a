"""The tiny material is what the host expects of its checkpoints and data."""

from __future__ import annotations

import json
from pathlib import Path

from . import tiny


def test_the_tokenizer_has_what_preprocess_qwen_counts_on(llm: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(llm)
    assert tokenizer("\n").input_ids == [198]
    assert tokenizer("a<|im_start|>b<|im_end|>").input_ids[1::2] == [257, 258]
    assert tokenizer.decode(tokenizer("héllo").input_ids) == "héllo"
    assert len(tokenizer) == tiny.VOCABULARY


def test_the_host_loads_the_checkpoint_as_its_own(dense: Path, hub: Path) -> None:
    from llava.model.builder import load_pretrained_model

    with tiny.hub_cache(hub):
        _, model, processor, _ = load_pretrained_model(
            str(dense), None, "llava-qwen", torch_dtype="bfloat16", attn_implementation="sdpa"
        )
    assert type(model).__name__ == "LlavaQwenForCausalLM"
    assert type(processor).__name__ == "SigLipImageProcessor"
    assert len(model.get_vision_tower().vision_tower.vision_model.encoder.layers) == 2
    assert "qwen" in str(dense) and not any(word in str(dense).lower() for word in ("llama", "yi", "mistral"))


def test_the_training_set_has_every_kind_of_row(training_set: tiny.TrainingSet) -> None:
    import decord

    rows = json.loads(training_set.json.read_text())
    assert [next((k for k in ("video", "image") if k in row), "text") for row in rows].count("video") == 3
    assert {len(row["conversations"]) for row in rows} == {2, 4}
    assert len(decord.VideoReader(str(training_set.media / "red.mp4"))) == 24
