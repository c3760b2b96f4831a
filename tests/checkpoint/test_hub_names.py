"""Names of the hub in place of folders, from a local cache and without network."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tam_plugin.errors import InputError
from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder
from tests.plans.data import plan_data, row, write

from .conftest import all_tensors, upcycle
from .test_merge import Material, merge

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def into_cache(home: Path, name: str, folder: Path) -> Path:
    """Put a folder's files into the cache of ``HF_HOME`` as the hub's library lays them out; the snapshot."""
    repository = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for made in (repository / "refs", repository / "blobs", snapshot):
        made.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for file in sorted(folder.iterdir()):
        blob = hashlib.sha256(file.name.encode()).hexdigest()
        file.rename(repository / "blobs" / blob)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob))
    return snapshot


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """``HF_HOME`` of an offline machine, which the library has read already."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.mark.slow
def test_upcycle_takes_a_hub_name(write_dense, tmp_path):
    """In a process of its own, with the environment of a user; shards are links into the cache."""
    dense = write_dense()
    assert upcycle(dense, tmp_path / "of_folder", "--copy") == 0
    into_cache(tmp_path / "home", "org/dense", dense)
    env = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    env.pop("HF_HUB_CACHE", None)
    argv = [sys.executable, "-m", "tam_plugin.cli.main", "upcycle", "org/dense", str(tmp_path / "of_name")]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = all_tensors(tmp_path / "of_name"), all_tensors(tmp_path / "of_folder")
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    names = {file.name for file in (tmp_path / "of_name").iterdir()}
    assert names == {file.name for file in (tmp_path / "of_folder").iterdir()}
    assert not any(file.is_symlink() for file in (tmp_path / "of_name").iterdir())


def test_merge_takes_hub_names(home, tmp_path):
    material = Material(tmp_path)
    expected = material.expected(2.0).keys()
    into_cache(home, "org/base", material.base)
    into_cache(home, "org/run", material.run)
    assert merge("org/run", tmp_path / "whole", "--base", "org/base") == 0
    assert all_tensors(tmp_path / "whole").keys() == expected


def test_plan_data_takes_a_hub_name(home, tmp_path):
    (tmp_path / "model").mkdir()
    values = {
        "mm_vision_tower": "google/siglip-so400m-patch14-384",
        "mm_newline_position": "frame",
        "mm_patch_merge_type": "spatial_unpad",
        "tokenizer_model_max_length": 4000,
    }
    (tmp_path / "model" / "config.json").write_text(json.dumps(values))
    into_cache(home, "org/model", tmp_path / "model")
    data = write(tmp_path / "data.json", [row(1, "Where?", duration=9)])
    assert plan_data(data, tmp_path / "out", "--model", "org/model", layout=()) == 0
    layout = json.loads((tmp_path / "out" / "plans.json").read_text())["layout"]
    assert (layout["newline_position"], layout["max_context_tokens"]) == ("frame", 4000)


@pytest.mark.parametrize("name", ["./gone", "gone/", "a/b/c", "/gone", "~/gone", "gone.json", "", "a b/c"])
def test_a_path_that_is_not_there_is_a_missing_folder(home, name):
    with pytest.raises(InputError, match=r"does not exist: expected a model's folder"):
        model_folder(name)


def test_what_the_cache_lacks_is_told_with_what_to_do(home, tmp_path, capsys):
    for argv in (("org/gone", tmp_path / "out"), ("gone", tmp_path / "out")):
        assert upcycle(*argv) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"SRC '{argv[0]}' does not exist as a folder, and the hub's model" in said
        assert f"(HF_HUB_OFFLINE is set); run 'hf download {argv[0]}' where the hub can be reached" in said
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    into_cache(home, "org/model", tmp_path / "model")
    assert upcycle("org/model", tmp_path / "out") == 2
    assert (
        "no weights (*.safetensors, *.bin) are in the repository or in what the local cache" in capsys.readouterr().err
    )


def test_a_folder_goes_before_the_hub(home, tmp_path):
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert model_folder("org/model", TEXT_FILES, WEIGHTS) == Path("org/model")


def test_no_network_is_one_line(home, monkeypatch):
    """The connection is refused at once: nothing listens there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"is not whole in the local cache \(the hub cannot be read: ") as caught:
        model_folder("org/gone")
    assert "\n" not in str(caught.value)
