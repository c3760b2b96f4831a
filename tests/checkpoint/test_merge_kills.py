"""SIGKILL inside ``tam merge``: nothing that loads is left, and the same command ends with the files of a calm run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tam_plugin.checkpoint.source import CONFIG

from .conftest import digests
from .test_merge import Material

pytestmark = pytest.mark.slow
SPREAD, LAST = 10, 6
RUN = """
import json, os, signal, sys
import torch
from tam_plugin.checkpoint import merge, open_source
from tam_plugin.checkpoint.target import Options
from tam_plugin.patches.llava_next.merging import open_parts

run, base, folder = sys.argv[1:4]
spread, last = int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(1)
opened = open_source(base)
open_parts(run, opened).close()  # its imports are made once, before the forks
opened.close()
TOUCHES = ("pwrite", "write", "fsync", "replace", "link", "ftruncate", "unlink")

def convert(target, counter):
    for name in TOUCHES:  # what changes the disk, counted; the kill comes right before
        def touch(*args, real=getattr(os, name), **more):
            counter()
            return real(*args, **more)
        setattr(os, name, touch)
    opened = open_source(base)
    parts = open_parts(run, opened)
    merge(opened, target, parts, options=Options(chunk_bytes=1 << 10, max_shard_bytes=32 << 10))

def forked(target, kill_at=None):
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
        convert(target, counter)
        real_write(writing, str(count).encode())
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 100)
    os.close(reading)
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0), status
    return None if killed else int(said)

calm = forked(f"{folder}/calm")
places = {1 + n * (calm - 1) // spread for n in range(spread)} | set(range(calm + 1 - last, calm + 1))
for place in sorted(places):
    target = f"{folder}/{place}"
    cut = forked(target, place)
    files = sorted(os.listdir(target)) if os.path.isdir(target) else []
    print(json.dumps({"target": target, "cut": cut, "files": files, "calm": calm, "rest": forked(target)}))
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """One calm run, then a killed one and its continuation for each place of the kill, in forks of one process."""
    folder = tmp_path_factory.mktemp("kills")
    made = Material(folder)
    argv = [str(made.run), str(made.base), str(folder), str(SPREAD), str(LAST)]
    done = subprocess.run([sys.executable, "-c", RUN, *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_same_command_ends_with_the_files_of_a_calm_run(runs: list[dict]):
    assert len(runs) >= SPREAD and all(run["cut"] is None for run in runs)
    expected = digests(Path(runs[0]["target"]).parent / "calm")
    assert len([name for name in expected if name.endswith(".safetensors")]) > 3
    for run in runs:
        assert digests(Path(run["target"])) == expected, run["target"]


def test_what_a_kill_leaves_is_whole_or_does_not_load(runs: list[dict]):
    expected = sorted(digests(Path(runs[0]["target"])))
    with_config = [run for run in runs if CONFIG in run["files"]]
    assert 0 < len(with_config) < LAST
    assert all(run["files"] == expected for run in with_config)
    assert any(name.endswith(".part") for run in runs for name in run["files"])


def test_finished_shards_are_not_written_again(runs: list[dict]):
    middle = [run for run in runs if run["files"] and CONFIG not in run["files"]]
    assert middle[-1]["rest"] < runs[0]["calm"] / 2
    assert all(run["rest"] == 0 for run in runs if CONFIG in run["files"])
