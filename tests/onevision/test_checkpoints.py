"""Checkpoints: round trips as ordinary Hugging Face models, upgrades, refusals."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForImageTextToText

from tam_plugin import TamConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.onevision import (
    TamOnevisionForConditionalGeneration,
    VideoTurn,
    build_inputs,
    load,
    upgrade_dense,
)


@pytest.fixture
def saved(make_tam, dense_and_tokenizer, tmp_path):
    """A saved TAM checkpoint with eight experts: the model, and its folder."""
    model = make_tam(diverge=True, moe={"num_experts": 8, "top_k": 1}, projector={"strides": [1, 2]})
    model.save_pretrained(tmp_path)
    dense_and_tokenizer[1].save_pretrained(tmp_path)
    return model, tmp_path


def test_round_trip_through_the_auto_classes(saved, dense_and_tokenizer, frames):
    model, folder = saved
    again = AutoModelForImageTextToText.from_pretrained(folder)
    assert type(again) is TamOnevisionForConditionalGeneration
    assert again.config.tam_config == model.config.tam_config
    assert again.state_dict().keys() == model.state_dict().keys()
    inputs = build_inputs([VideoTurn(question="?", frames=frames(3))], dense_and_tokenizer[1], model.config)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)


def test_checkpoint_holds_stacked_experts_and_a_projector_a_stride(saved):
    model, folder = saved
    tensors = load_file(folder / "model.safetensors")
    shapes = {name.split("vision_tower.")[-1]: list(t.shape) for name, t in tensors.items()}
    stacked = [shape for name, shape in shapes.items() if name.endswith("layers.0.mlp.experts.fc1.weight")]
    assert stacked == [[8, 64, 32]]
    projectors = {n.split("multi_modal_projector.")[1].split(".")[0] for n in tensors if "multi_modal_projector" in n}
    assert projectors == {"stride_1", "stride_2"}
    assert json.loads((folder / "config.json").read_text())["tam"]["moe"]["num_experts"] == 8
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in model.parameters())


def test_transformers_without_the_plugin_refuses_by_name(saved):
    code = f"from transformers import AutoConfig; AutoConfig.from_pretrained({str(saved[1])!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "tam_llava_onevision" in done.stderr


def test_load_reads_a_tam_checkpoint(saved, dense_and_tokenizer, frames):
    model, folder = saved
    loaded = load(str(folder), device="cpu")
    assert loaded.notice is None and not loaded.model.training
    assert loaded.image_mean == (0.5, 0.5, 0.5)
    inputs = build_inputs([VideoTurn(question="?", frames=frames(2))], loaded.tokenizer, loaded.model.config)
    with torch.no_grad():
        assert torch.equal(loaded.model(**inputs).logits, model(**inputs).logits)
    with pytest.raises(ConfigError, match="TAM checkpoint already"):
        load(str(folder), tam_config=TamConfig())


def test_load_upgrades_a_dense_checkpoint_and_says_so(dense_and_tokenizer, tmp_path, frames):
    dense, tokenizer = dense_and_tokenizer
    dense.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
    loaded = load(str(tmp_path), device="cpu", tam_config=TamConfig.from_dict({"moe": {"num_experts": 2}}))
    assert "dense checkpoint, upgraded in memory" in loaded.notice
    assert loaded.image_mean == (0.1, 0.2, 0.3) and loaded.model.config.tam_config.moe.num_experts == 2
    inputs = build_inputs([VideoTurn(question="?", frames=frames(2))], tokenizer, loaded.model.config)
    with torch.no_grad():
        host = dense(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values_videos=inputs["pixel_values_videos"][None],
        ).logits
        assert (loaded.model(**inputs).logits - host).abs().max() <= 1e-5


def edit_config(folder, **moe):
    path = folder / "config.json"
    values = json.loads(path.read_text())
    values["tam"]["moe"].update(moe)
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("moe", "words"),
    [
        ({"num_experts": 4}, "names 4 experts (tam.moe.num_experts), the weights hold 8"),
        ({"enabled": False}, "names 0 experts"),
        ({"num_experts": "many"}, "MoeConfig.num_experts = 'many'"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(saved, moe, words):
    edit_config(saved[1], **moe)
    with pytest.raises(ConfigError) as caught:
        load(str(saved[1]))
    assert words in str(caught.value) and "\n" not in str(caught.value)


OTHER_GENERATION = [
    # transformers 4's layout of each part, and transformers 5's
    (r"^vision_tower\.vision_model\.", r"model.vision_tower."),
    (r"^language_model\.model\.", r"model.language_model."),
    (r"^language_model\.lm_head", r"lm_head"),
    (r"^multi_modal_projector", r"model.multi_modal_projector"),
    (r"^image_newline", r"model.image_newline"),
]


def in_layout(name, generation):
    """A tensor's name as transformers 4 or 5 saves it, whichever saved it."""
    import re

    for old, new in OTHER_GENERATION:
        name = re.sub(old, new, name)
    if generation == 5:
        return name
    for old, new in (
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.language_model.", "language_model.model."),
        ("lm_head", "language_model.lm_head"),
        ("model.multi_modal_projector", "multi_modal_projector"),
        ("model.image_newline", "image_newline"),
    ):
        if name.startswith(old):
            return new + name[len(old) :]
    return name


@pytest.mark.parametrize("generation", [4, 5])
def test_checkpoints_of_either_generation_of_transformers(saved, dense_and_tokenizer, frames, tmp_path, generation):
    from safetensors.torch import save_file

    model, folder = saved
    path = folder / "model.safetensors"
    tensors = {in_layout(name, generation): tensor for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    again = AutoModelForImageTextToText.from_pretrained(folder)
    again.save_pretrained(tmp_path / "again")
    inputs = build_inputs([VideoTurn(question="?", frames=frames(2))], dense_and_tokenizer[1], model.config)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(again(**inputs).logits, expected)
        resaved = AutoModelForImageTextToText.from_pretrained(tmp_path / "again")
        assert torch.equal(resaved(**inputs).logits, expected)


def rewrite_weights(folder, change):
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def a_gate(tensors):
    return next(name for name in tensors if name.endswith("mlp.gate.weight"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop(a_gate(tensors)), "the checkpoint is incomplete"),
        (lambda tensors: tensors.pop(next(n for n in tensors if "image_newline" in n)), "missing weights"),
        (lambda tensors: tensors.update({a_gate(tensors): torch.zeros(8, 31)}), "weights"),
        (lambda tensors: tensors.update(surplus=torch.zeros(1)), "unexpected weights (surplus)"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(saved, change, words):
    rewrite_weights(saved[1], change)
    with pytest.raises((ConfigError, InputError)) as caught:
        load(str(saved[1]), device="cpu")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_weights_and_missing_tokenizers(saved):
    folder = saved[1]
    for name in [p.name for p in folder.iterdir() if "token" in p.name]:
        (folder / name).unlink()
    with pytest.raises(InputError, match="no tokenizer"):
        load(str(folder), device="cpu")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="safetensors"):
        load(str(folder), device="cpu")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be loaded"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("device", ["quantum", "cuda:99"])
def test_devices_that_are_not_there(saved, device):
    with pytest.raises(InputError, match=f"device '{device}'"):
        load(str(saved[1]), device=device)


def test_other_checkpoints_and_missing_ones(tmp_path):
    with pytest.raises(InputError, match="holds no config"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llava_qwen"}')
    with pytest.raises(ConfigError, match="has model_type 'llava_qwen'"):
        load(str(tmp_path))
    with pytest.raises(InputError, match="no model can be read"):
        load("nobody/no-such-model")


def test_a_dense_checkpoint_is_not_taken_for_a_tam_checkpoint(dense_and_tokenizer, tmp_path):
    # transformers alone would load it with uninitialised gates and random projectors.
    dense_and_tokenizer[0].save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no 'tam' section"):
        TamOnevisionForConditionalGeneration.from_pretrained(tmp_path)


def test_only_a_dense_onevision_model_is_upgraded(make_tam):
    with pytest.raises(ConfigError, match="TamOnevisionForConditionalGeneration: expected a dense"):
        upgrade_dense(make_tam(), TamConfig())


def test_dense_encoder_can_be_kept(dense_and_tokenizer, frames):
    dense, _ = dense_and_tokenizer
    model = upgrade_dense(copy.deepcopy(dense), TamConfig.from_dict({"moe": {"enabled": False}}))
    names = set(model.model.vision_tower.state_dict())
    assert names == set(dense.model.vision_tower.state_dict())


def test_auto_config_knows_the_model_type(saved):
    assert AutoConfig.from_pretrained(saved[1]).tam_config.projector.strides == (1, 2)
