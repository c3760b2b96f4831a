"""Checkpoint folders that strangers made: nothing from outside of them is followed, copied or waited for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tam_plugin.cli.main import main
from tam_plugin.inductor.model import DEFAULT_FOLDER
from tam_plugin.patches.onevision import VideoAssistant

from ..hostile import assert_refused, limited
from .conftest import upcycle

SECRET = "the secret of another folder"


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "id.txt").write_text(SECRET)
    return folder


def as_hub_cache(source: Path, root: Path) -> Path:
    """A folder as huggingface_hub keeps it: a snapshot of links into the repository's blobs."""
    blobs, snapshot = root / "models--me--model" / "blobs", root / "models--me--model" / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in source.iterdir():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copy(path, blobs / digest)
        (snapshot / path.name).symlink_to(f"../../blobs/{digest}")
    return snapshot


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.endswith(".jsonl")}


def test_a_hub_cache_is_followed(write_dense, tmp_path):
    source = write_dense(shards=3)
    snapshot = as_hub_cache(source, tmp_path / "hub")
    assert upcycle(source, tmp_path / "plain", "--copy") == 0
    assert upcycle(snapshot, tmp_path / "cached", "--copy") == 0
    assert files_of(tmp_path / "cached") == files_of(tmp_path / "plain")
    assert not any(path.is_symlink() for path in (tmp_path / "cached").iterdir())


def test_links_to_other_folders_are_left_behind_and_named(write_dense, outside, tmp_path, capsys):
    source = write_dense()
    blobs = tmp_path / "models--me--model" / "blobs"
    blobs.mkdir(parents=True)
    (source / "notes.txt").symlink_to(outside / "id.txt")
    (source / "up.txt").symlink_to("../private/id.txt")
    (source / "sub").symlink_to(outside)
    (source / "twice.txt").symlink_to("once.txt")
    (source / "once.txt").symlink_to(outside / "id.txt")
    (source / "broken.txt").symlink_to("/nowhere")
    (source / "own.txt").symlink_to("config.json")
    os.mkfifo(source / "pipe.txt")
    with (source / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)
    assert upcycle(source, tmp_path / "tam") == 0
    said = capsys.readouterr().out
    made = files_of(tmp_path / "tam")
    assert not any(SECRET.encode() in content for content in made.values())
    assert "own.txt" in made
    for name in ("notes.txt", "up.txt", "sub", "twice.txt", "once.txt", "broken.txt", "pipe.txt", "huge.txt"):
        assert name not in made and name in said


@pytest.mark.parametrize("by", ["name", "link"])
def test_a_cache_that_only_looks_like_one(write_dense, outside, tmp_path, by):
    snapshot = as_hub_cache(write_dense(), tmp_path / "hub")
    blobs = snapshot.parent.parent / "blobs"
    if by == "name":  # a file of the blobs folder whose name is no hash
        (blobs / "id_rsa").write_text(SECRET)
        (snapshot / "notes.txt").symlink_to("../../blobs/id_rsa")
    else:  # a blob that is a link itself
        (blobs / ("b" * 64)).symlink_to(outside / "id.txt")
        (snapshot / "notes.txt").symlink_to(f"../../blobs/{'b' * 64}")
    assert upcycle(snapshot, tmp_path / "tam") == 0
    assert "notes.txt" not in files_of(tmp_path / "tam")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_configuration_that_is_a_link_is_refused(write_dense, outside, tmp_path, capsys, name):
    source = write_dense()
    shutil.move(source / name, outside / name)
    (source / name).symlink_to(outside / name)
    assert upcycle(source, tmp_path / "tam") == 2
    err = capsys.readouterr().err
    assert name in err and "is a link out of its folder" in err and not (tmp_path / "tam").exists()


def test_a_shard_that_is_a_link_must_be_one(write_dense, outside, tmp_path, capsys):
    source = write_dense(shards=1)
    shutil.move(source / "model.safetensors", outside / "model.safetensors")
    (source / "model.safetensors").symlink_to(outside / "model.safetensors")
    assert upcycle(source, tmp_path / "tam") == 0
    (source / "model.safetensors").unlink()
    (source / "model.safetensors").symlink_to(outside / "id.txt")
    capsys.readouterr()
    assert upcycle(source, tmp_path / "again") == 2
    err = capsys.readouterr().err
    assert "expected a whole safetensors file" in err and SECRET not in err and not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.index.json"])
def test_pipes_are_not_waited_for(write_dense, tmp_path, name):
    source = write_dense(shards=1)
    (source / name).unlink(missing_ok=True)
    if name.endswith("index.json"):
        (source / "model.safetensors").unlink()
    os.mkfifo(source / name)
    assert_refused(limited(["upcycle", source, tmp_path / "tam"], seconds=60), str(source))


@pytest.mark.parametrize(
    ("section", "field", "value", "words"),
    [
        ("vision_config", "num_hidden_layers", 10**9, "num_hidden_layers = 1000000000: expected a whole number"),
        ("vision_config", "image_size", [], "image_size"),
        ("vision_config", "hidden_act", 7, "hidden_act"),
        ("vision_config", "layer_norm_eps", "small", ""),
        ("text_config", "num_hidden_layers", 10**12, "num_hidden_layers"),
        ("text_config", "hidden_size", -1, "hidden_size"),
        (None, "text_config", [1], ""),
        (None, "tam", {"projector": {"strides": list(range(1, 100_000))}}, ""),
    ],
)
def test_sizes_that_no_model_has(write_dense, tmp_path, capsys, section, field, value, words):
    source = write_dense()
    values = json.loads((source / "config.json").read_text())
    (values if section is None else values[section])[field] = value
    if field == "tam":
        values["model_type"] = "tam_llava_onevision"
    (source / "config.json").write_text(json.dumps(values))
    for argv in (["upcycle", source, tmp_path / "tam"], ["upcycle", source, "--inspect"], ["flops", "--model", source]):
        capsys.readouterr()
        assert main(list(map(str, argv))) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1 and not (tmp_path / "tam").exists()


def test_a_tensor_larger_than_its_file(write_dense, tmp_path, capsys):
    source = write_dense(shards=1, suffix="bin")
    file = source / "pytorch_model.bin"
    tensors = torch.load(file, weights_only=True)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    tensors[name] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(tensors, file)
    capsys.readouterr()
    assert upcycle(source, tmp_path / "tam") == 2
    err = capsys.readouterr().err
    assert "expected a tensor whose elements are all in the file" in err and err.count("\n") == 1


def test_an_inductor_travels_with_the_checkpoint(write_dense, tmp_path, capsys):
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "mine")
    config = tmp_path / "tam.yaml"
    config.write_text(f"inductor: {tmp_path / 'mine'}\n")
    assert upcycle(write_dense(), tmp_path / "tam", "--config", config) == 0
    shutil.rmtree(tmp_path / "mine")
    assistant = VideoAssistant.from_pretrained(str(tmp_path / "tam"))
    assert assistant.inductor == str((tmp_path / "tam" / "inductor").resolve())
    config.write_text("inductor: ./absent\n")
    capsys.readouterr()
    assert upcycle(write_dense(), tmp_path / "other", "--config", config) == 2
    assert "no Inductor at './absent'" in capsys.readouterr().err and not (tmp_path / "other").exists()
