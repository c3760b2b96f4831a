"""What cannot be converted: exit code 2, one line that says what is wrong, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import digests, upcycle


def edited(folder: Path, **changes) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def shard(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("model-*.safetensors"))[number]


def truncate(folder: Path) -> None:
    os.truncate(shard(folder), shard(folder).stat().st_size - 5)


def index(folder: Path, change) -> None:
    path = folder / "model.safetensors.index.json"
    values = json.loads(path.read_text())
    change(values["weight_map"])
    path.write_text(json.dumps(values))


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    (folder / "model.safetensors.index.json").unlink()
    tensors = {n: t for p in sorted(folder.glob("model-*")) for n, t in load_file(p).items()}
    for path in folder.glob("model-*"):
        path.unlink()
    tensors = {n: t for n, t in tensors.items() if not n.endswith("layers.1.mlp.fc2.bias")}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def twice(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "model-extra.safetensors")
    index(folder, lambda places: places.update({min(places): "model-extra.safetensors"}))


def vision(folder: Path, **changes) -> None:
    given = json.loads((folder / "config.json").read_text())["vision_config"]
    edited(folder, vision_config={**given, **changes})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda f: (f / "config.json").unlink(), "holds no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object, found list"),
        (lambda f: [p.unlink() for p in f.glob("*.safetensors*")], "holds no weights"),
        (lambda f: shard(f, 1).unlink(), "lacks model-00002-of-00003.safetensors (1 of the 3 files"),
        (truncate, "cannot be read"),
        (lambda f: shard(f).write_bytes(b""), "cannot be read"),
        (lambda f: index(f, lambda places: places.update(nothing=shard(f).name)), "holds no nothing, which the index"),
        (lambda f: index(f, lambda places: places.update(a="../model.safetensors")), "expected a weight_map"),
        (lambda f: index(f, lambda places: places.clear()), "expected a weight_map"),
        (twice, "is in both"),
        (lambda f: edited(f, model_type="qwen2"), "has model_type 'qwen2' and no mm_vision_tower"),
        (lambda f: edited(f, model_type="tam_llava_onevision", tam={}), "is a TAM checkpoint already (4 experts)"),
        (lambda f: vision(f, model_type="clip_vision_model"), "vision_config.model_type = 'clip_vision_model'"),
        (
            lambda f: vision(f, num_hidden_layers=3),
            "vision_model.encoder.layers.2.mlp.fc1.weight",
        ),
        (lambda f: vision(f, num_hidden_layers=1), "its configuration has 1 encoder layers"),
        (lambda f: vision(f, intermediate_size=65), "has shape [64, 32], but its configuration says [65, 32]"),
        (drop_tensor, "layers.1.mlp.fc2.bias"),
    ],
)
def test_sources_that_are_refused(write_dense, tmp_path, capsys, spoil, words):
    source = write_dense()
    spoil(source)
    capsys.readouterr()
    assert upcycle(source, tmp_path / "tam") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "tam").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--num-experts", 0], "num_experts = 0"),
        (["--top-k", 9], "top_k = 9: expected a whole number from 1 to 4"),
        (["--strides", "1,two"], "--strides '1,two'"),
        (["--strides", "2,1"], "strides = (2, 1)"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--dense", "average"], "is a dense checkpoint already"),
        (["--dense", "best"], "--dense 'best': expected average or expert:N"),
        (["--dense", "expert:-1"], "--dense 'expert:-1'"),
        (["--dense", "average", "--projector", "2"], "--projector '2': expected average or stride:N"),
        (["--dense", "average", "--top-k", 1], "--dense and --top-k exclude each other"),
        (["--projector", "average"], "belong to --dense"),
        (["--inspect"], "--inspect writes nothing"),
    ],
)
def test_arguments_that_are_refused(write_dense, tmp_path, capsys, argv, words):
    source = write_dense()
    capsys.readouterr()
    assert upcycle(source, tmp_path / "tam", *argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "tam").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--dense", "expert:4"], "--dense expert:4: "),
        (["--dense", "average", "--projector", "stride:7"], "this model has projectors for 1, 2, 3, 4"),
        (["--dense", "average", "--vision-tower", "google/siglip"], "checkpoint carries its tower"),
    ],
)
def test_ways_back_that_are_not_there(write_dense, tmp_path, capsys, argv, words):
    assert upcycle(write_dense(), tmp_path / "tam") == 0
    capsys.readouterr()
    assert upcycle(tmp_path / "tam", tmp_path / "back", *argv) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("dense", "is the source itself"),
        ("dense/../dense", "is the source itself"),
        ("dense/inside", "lies inside the source"),
        (".", "contains the source"),
        ("taken", "is not empty (it holds 'notes.txt')"),
        ("file", "is not a folder"),
    ],
)
def test_targets_that_are_refused(write_dense, tmp_path, capsys, target, words):
    source = write_dense()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    capsys.readouterr()
    assert upcycle(source, tmp_path / target) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_another_source_or_other_settings_need_overwrite(write_dense, tmp_path, capsys):
    source, target = write_dense(shards=60), tmp_path / "tam"
    assert upcycle(source, target) == 0
    made, kept = digests(target), digests(source)
    edited_source = tmp_path / "other"
    shutil.copytree(source, edited_source)
    cases = [
        ((source, target, "--seed", 1), "(settings.seed is 1, was 0)"),
        ((source, target, "--top-k", 1), "(settings.tam.moe.top_k is 1, was 2)"),
        ((source, target, "--copy"), "(settings.transfer is 'copy', was 'link')"),
        ((edited_source, target), "another source"),
    ]
    for argv, words in cases:
        if argv[0] is edited_source:
            edited(edited_source, eos_token_id=3)
        capsys.readouterr()
        assert upcycle(*argv) == 2
        err = capsys.readouterr().err
        assert words in err and "--overwrite" in err and err.count("\n") == 1
        assert digests(target) == made
    assert upcycle(source, target, "--seed", 1, "--overwrite") == 0
    assert upcycle(source, tmp_path / "fresh", "--seed", 1) == 0
    assert digests(target) == digests(tmp_path / "fresh") != made
    assert digests(source) == kept  # linked shards were replaced, not written into


def test_two_processes_at_once(write_dense, tmp_path, capsys):
    import fcntl

    source, target = write_dense(), tmp_path / "tam"
    target.mkdir()
    with open(target / "tam_upcycle.jsonl", "wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        capsys.readouterr()
        assert upcycle(source, target) == 2
        assert f"in use by another process (process {os.getpid()}): wait for it" in capsys.readouterr().err
    assert upcycle(source, target) == 0


def test_a_damaged_journal_is_named_and_overwritten(write_dense, tmp_path, capsys):
    source, target = write_dense(), tmp_path / "tam"
    assert upcycle(source, target) == 0
    made, journal = digests(target), target / "tam_upcycle.jsonl"
    lines = journal.read_bytes().splitlines(True)
    journal.write_bytes(lines[0] + b"{}\n" + b"".join(lines[1:]))
    capsys.readouterr()
    assert upcycle(source, target) == 2
    assert "tam_upcycle.jsonl:2: damaged" in capsys.readouterr().err
    assert upcycle(source, target, "--overwrite") == 0 and digests(target) == made


def test_a_disk_that_is_too_full(write_dense, tmp_path, capsys):
    source = write_dense(shards=60)
    free = shutil.disk_usage(tmp_path).free
    header = {"ballast": {"dtype": "U8", "shape": [free * 2], "data_offsets": [0, free * 2]}}
    text = json.dumps(header).encode()
    with (source / "model-ballast.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + free * 2)
    index(source, lambda places: places.update(ballast="model-ballast.safetensors"))
    capsys.readouterr()
    assert upcycle(source, tmp_path / "tam", "--copy") == 2
    err = capsys.readouterr().err
    assert "is too full" in err and "GB are needed" in err and "GB are free" in err and err.count("\n") == 1
    assert not (tmp_path / "tam").exists()
    assert upcycle(source, tmp_path / "tam", "--link") == 0
