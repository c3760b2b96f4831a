"""Checkpoints made on disk beside the upgrade in memory, which is the measure."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from tam_plugin import TamConfig
from tam_plugin.patches.onevision import TamOnevisionForConditionalGeneration, VideoTurn, build_inputs, load
from tam_plugin.patches.onevision.upgrade import upgrade_dense

from .conftest import IMAGE_SIZE, all_tensors, digests, upcycle

SECTIONS = {
    "default": {},
    "one of eight": {"moe": {"num_experts": 8, "top_k": 1}, "projector": {"strides": [1, 2]}},
    "dense encoder": {"moe": {"enabled": False}},
    "single": {"projector": {"gate": "single"}},
    "soft": {"moe": {"num_experts": 3}, "projector": {"gate": "soft", "num_experts": 3, "top_k": 1}},
}
TIMES = {"transformers_version", "dtype", "torch_dtype", "_name_or_path"}


def yaml_of(tmp_path, sections):
    path = tmp_path / "tam.yaml"
    path.write_text(json.dumps(sections))  # JSON is YAML
    return path


def in_memory(dense_model, sections, seed):
    torch.manual_seed(seed)
    return upgrade_dense(copy.deepcopy(dense_model[0]), TamConfig.from_dict(sections))


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
@pytest.mark.parametrize("generation", [4, 5])
def test_it_is_what_the_upgrade_in_memory_makes(dense_model, write_dense, tmp_path, generation, sections):
    source = write_dense(generation=generation)
    assert upcycle(source, tmp_path / "tam", "--config", yaml_of(tmp_path, sections), "--seed", 5) == 0
    made = TamOnevisionForConditionalGeneration.from_pretrained(tmp_path / "tam")
    expected = in_memory(dense_model, sections, seed=5)
    assert made.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(made.state_dict()[name], tensor), name
    expected.save_pretrained(tmp_path / "saved")
    ours, theirs = (json.loads((tmp_path / f / "config.json").read_text()) for f in ("tam", "saved"))
    assert {k: v for k, v in ours.items() if k not in TIMES} == {k: v for k, v in theirs.items() if k not in TIMES}


@pytest.mark.parametrize(
    ("shards", "suffix", "dtype"),
    [(1, "safetensors", torch.float32), (4, "bin", torch.float32), (1, "bin", torch.bfloat16)],
)
def test_it_loads_and_computes_what_the_dense_model_computes(
    dense_model, write_dense, tmp_path, shards, suffix, dtype, capsys
):
    source = write_dense(shards=shards, suffix=suffix, dtype=dtype)
    assert upcycle(source, tmp_path / "tam", "--num-experts", 6, "--top-k", 3, "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["linked"] == 0  # each file holds something that changes
    loaded = load(str(tmp_path / "tam"), device="cpu")
    assert loaded.notice is None and loaded.image_mean == (0.1, 0.2, 0.3)
    assert loaded.model.config.tam_config.moe.num_experts == 6
    frames = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
    inputs = build_inputs([VideoTurn(question="?", frames=frames)], loaded.tokenizer, loaded.model.config)
    dense = copy.deepcopy(dense_model[0]).to(dtype).float()
    with torch.no_grad():
        host = dense(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            pixel_values_videos=inputs["pixel_values_videos"][None],
        ).logits
        assert (loaded.model(**inputs).logits - host).abs().max() <= 1e-5


@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back_gives_the_very_tensors(write_dense, tmp_path, sections, dtype):
    source = write_dense(dtype=dtype)
    assert upcycle(source, tmp_path / "tam", "--config", yaml_of(tmp_path, sections)) == 0
    original = all_tensors(source)
    ways = [("average", "average"), ("expert:1", "stride:2"), ("average", "stride:1")]
    for number, (dense, projector) in enumerate(ways):
        back = tmp_path / f"back{number}"
        assert upcycle(tmp_path / "tam", back, "--dense", dense, "--projector", projector) == 0
        made = all_tensors(back)
        assert made.keys() == original.keys()
        for name, tensor in original.items():
            assert torch.equal(made[name].view(torch.uint8), tensor.view(torch.uint8)), name
        assert json.loads((back / "config.json").read_text()) == json.loads((source / "config.json").read_text())


def test_trained_experts_are_averaged_or_chosen(write_dense, tmp_path):
    from safetensors.torch import load_file, save_file

    assert upcycle(write_dense(), tmp_path / "tam", "--copy") == 0
    generator = torch.Generator().manual_seed(3)
    for file in (tmp_path / "tam").glob("*.safetensors"):
        moved = {n: t + torch.randn(t.shape, generator=generator) for n, t in load_file(file).items()}
        save_file(moved, file, metadata={"format": "pt"})
    trained = all_tensors(tmp_path / "tam")
    fc1 = next(name for name in trained if "layers.1.mlp.experts.fc1.weight" in name)
    linear = next(name for name in trained if "stride_2.linear_1.weight" in name)
    for dense, projector in (("average", "average"), ("expert:3", "stride:4")):
        back = tmp_path / dense.replace(":", "")
        assert upcycle(tmp_path / "tam", back, "--dense", dense, "--projector", projector) == 0
        made = all_tensors(back)
        experts = trained[fc1].double()
        strides = torch.stack([trained[linear.replace("stride_2", f"stride_{s}")].double() for s in (1, 2, 3, 4)])
        expected = (experts.mean(0), strides.mean(0)) if dense == "average" else (experts[3], strides[3])
        torch.testing.assert_close(made[fc1.replace("experts.", "")].double(), expected[0], rtol=1e-7, atol=0)
        torch.testing.assert_close(made[linear.replace("stride_2.", "")].double(), expected[1], rtol=1e-7, atol=0)


def test_what_does_not_change_is_linked_or_copied_and_the_rest_goes_along(write_dense, tmp_path, capsys):
    source = write_dense(shards=60)
    (source / "checkpoint-5").mkdir()
    (source / "optimizer.pt").write_bytes(b"state")
    before = digests_of_files(source)
    assert upcycle(source, tmp_path / "linked", "--json") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert upcycle(source, tmp_path / "copied", "--copy") == 0
    assert "optimizer.pt" in " ".join(said["notes"]) and "checkpoint-5" in " ".join(said["notes"])
    inodes = {p.stat().st_ino for p in source.iterdir()}
    shared = [p for p in (tmp_path / "linked").iterdir() if p.stat().st_ino in inodes]
    assert len(shared) == said["linked"] > 10
    assert not inodes & {p.stat().st_ino for p in (tmp_path / "copied").iterdir()}
    linked, copied = digests(tmp_path / "linked"), digests(tmp_path / "copied")
    journal = "tam_upcycle.jsonl"
    assert {**linked, journal: ""} == {**copied, journal: ""}
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.json"):
        assert linked[name] == before[name]
    assert "optimizer.pt" not in linked and digests_of_files(source) == before
    index = json.loads((tmp_path / "linked" / "model.safetensors.index.json").read_text())
    tensors = all_tensors(tmp_path / "linked")
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in tensors.values())


def digests_of_files(folder):
    import hashlib

    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.is_file()}
