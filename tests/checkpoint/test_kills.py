"""SIGKILL inside a conversion: nothing that loads is left, and the same call ends with the files of a calm run."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tam_plugin.checkpoint import open_source
from tam_plugin.checkpoint.source import CONFIG

from .conftest import all_tensors, digests, upcycle

KILLS = 10
RUN = """
import json, os, signal, sys
import torch
from tam_plugin.checkpoint import open_source, upcycle
from tam_plugin.checkpoint.target import Options
from tam_plugin.cli.upcycle import find_layout
from tam_plugin.config import TamConfig

source, runs = sys.argv[1], json.loads(sys.argv[2])
opened = open_source(source)
find_layout(opened)  # its imports are made once, before the forks
opened.close()
TOUCHES = ("pwrite", "write", "fsync", "replace", "link", "ftruncate", "unlink")

def convert(target, transfer, counter):
    for name in TOUCHES:  # what changes the disk, counted; the kill comes right before
        def touch(*args, real=getattr(os, name), **more):
            counter()
            return real(*args, **more)
        setattr(os, name, touch)
    opened = open_source(source)
    options = Options(transfer=transfer, chunk_bytes=1 << 16, max_shard_bytes=4 << 20)
    upcycle(opened, target, find_layout(opened), TamConfig(), options=options)

def forked(target, transfer, kill_at=None):
    '''Run in a child; gives how often it touched the disk, or None if it was killed.'''
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0
        def counter():
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        real_write = os.write
        convert(target, transfer, counter)
        real_write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 100)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0), status
    return None if killed else int(said)

calm = {}
for folder, transfer, kill_at in runs:
    if kill_at is not None and kill_at < 1:  # a share of a calm run, or steps from its end
        kill_at = max(1, round(kill_at * calm[transfer]) if kill_at > 0 else calm[transfer] + kill_at)
    count = forked(folder, transfer, kill_at)
    calm.setdefault(transfer, count)
    print(json.dumps({"count": count, "files": sorted(os.listdir(folder)) if os.path.isdir(folder) else []}))
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory) -> Path:
    """A dense checkpoint of some 80 MB over 24 files whose encoder has layers worth stacking."""
    from tam_plugin.patches.onevision.demo import demo_dense_model

    folder = tmp_path_factory.mktemp("big")
    model, tokenizer = demo_dense_model(
        image_size=70, patch_size=14, hidden_size=256, intermediate_size=1024, num_hidden_layers=6
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = all_tensors(folder)
    (folder / "model.safetensors").unlink()
    # Beside the model, ballast that takes the part of a large language model; a conversion takes it along.
    generator = torch.Generator().manual_seed(0)
    tensors.update({f"ballast.{n}": torch.randn(1 << 19, generator=generator) for n in range(28)})
    names, places = sorted(tensors), {}
    for number in range(24):
        file = f"model-{number + 1:05d}-of-00024.safetensors"
        part = names[number * len(names) // 24 : (number + 1) * len(names) // 24]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 50e6 < size < 150e6
    return folder


def run_all(source: Path, runs: list) -> list[dict]:
    """Runs of ``[folder, transfer, kill_at]`` in one process, each in a fork of its own."""
    argv = [str(source), json.dumps([[str(folder), transfer, kill] for folder, transfer, kill in runs])]
    done = subprocess.run([sys.executable, "-c", RUN, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["link", "copy"])
def test_ten_kills_change_nothing(big: Path, tmp_path: Path, transfer: str):
    # Each run goes on from the one before: shares of a whole run that ten of them just about make up.
    rng = random.Random(11)
    kills = [rng.uniform(0.01, 0.15) for _ in range(KILLS)]
    calm, out = tmp_path / "calm", tmp_path / "out"
    runs = run_all(big, [[calm, transfer, None], *([out, transfer, kill] for kill in kills), [out, transfer, None]])
    killed = [run for run in runs if run["count"] is None]
    assert len(killed) == KILLS
    # Whatever a kill left had no config.json, so that nothing loads it; and work was carried over.
    assert not any(CONFIG in run["files"] for run in killed)
    assert any(file.endswith(".part") for run in killed for file in run["files"])
    assert runs[-1]["count"] < runs[0]["count"]
    assert digests(out) == digests(calm)


@pytest.mark.slow
def test_a_kill_at_each_of_the_last_steps(big: Path, tmp_path: Path):
    """Where the index and config.json appear: a folder with config.json is whole."""
    folders = [tmp_path / f"out{back}" for back in range(8)]
    cut = [[folder, "link", -back] for back, folder in enumerate(folders)]
    runs = run_all(big, [[tmp_path / "calm", "link", None], *cut, *([folder, "link", None] for folder in folders)])
    expected, killed = digests(tmp_path / "calm"), runs[1 : 1 + len(cut)]
    assert all(run["count"] is None for run in killed)
    with_config = [run for run in killed if CONFIG in run["files"]]
    assert 0 < len(with_config) < len(killed)
    assert all(run["files"] == sorted(expected) for run in with_config)
    assert all(digests(folder) == expected for folder in folders)


def test_a_finished_folder_is_left_alone(big: Path, tmp_path: Path, capsys):
    assert upcycle(big, tmp_path / "tam") == 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tam").iterdir()}
    capsys.readouterr()
    assert upcycle(big, tmp_path / "tam", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["read_bytes"], said["written_bytes"]) == (0, 0)
    assert said["resumed"] == said["linked"] + said["written"]
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tam").iterdir()} == before


def test_a_lost_shard_and_a_torn_journal_are_made_good(big: Path, tmp_path: Path):
    assert upcycle(big, tmp_path / "tam") == 0
    calm = digests(tmp_path / "tam")
    last = sorted((tmp_path / "tam").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:100])
    (tmp_path / "tam" / ".model-00001.part").write_bytes(b"a piece")
    assert upcycle(big, tmp_path / "tam") == 0
    assert digests(tmp_path / "tam") == calm
    journal = tmp_path / "tam" / "tam_upcycle.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])
    assert upcycle(big, tmp_path / "tam") == 0
    assert digests(tmp_path / "tam") == calm


def test_the_source_is_opened_once_and_closed(big: Path):
    source = open_source(big)
    source.close()
    source.close()
    assert len(source.shards) == 24 and len(source.holder) > 28
