"""Errors of a training script are one line, once, with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tam_plugin.errors import InputError
from tests.llava import tiny

RAISES = """
import torch.distributed
from tam_plugin.patches.llava_next.command_line import script_errors
from tam_plugin.errors import ConfigError
script_errors.install()
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
script_errors.install()
raise {error}
"""


def ended(error: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RAISES.format(error=error)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False)


def test_one_line_and_two() -> None:
    """Also under the hook by which torch.distributed writes the rank before every error."""
    done = ended("ConfigError('--tam_top_k 9:\\nexpected less')")
    assert (done.returncode, done.stderr) == (2, "-c: --tam_top_k 9: expected less\n")


def test_what_is_no_fault_of_the_user_keeps_its_traceback() -> None:
    done = ended("KeyError('tower')")
    assert done.returncode == 1 and "Traceback" in done.stderr
    done = ended("ConfigError('no')", TAM_DEBUG="1")
    assert done.returncode == 1 and "Traceback" in done.stderr


class Unreadable(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        raise InputError(f"sample {index}: three\nwords")


def test_an_error_of_a_workers_is_its_message_alone() -> None:
    from tam_plugin.patches.llava_next.command_line.script_errors import one_line

    with pytest.raises(InputError, match="Original Traceback") as caught:
        next(iter(torch.utils.data.DataLoader(Unreadable(), num_workers=1)))
    assert one_line(caught.value) == "sample 0: three words"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["python", "torchrun"])
def test_a_wrong_flag_on_every_rank_is_said_once(
    llava_train: Path, dense: Path, hub: Path, training_set: tiny.TrainingSet, tmp_path: Path, launcher: str
) -> None:
    arguments = tiny.train_args(dense, training_set, tmp_path / "out", 1, vision_tower="tam", tam_num_experts=1)
    script = str(llava_train / "llava" / "train" / "train_mem.py")
    before = [] if launcher == "python" else ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
    env = tiny.environment(llava_train, hub, OMP_NUM_THREADS="1")
    command = [sys.executable, *before, script, *arguments]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    said = [line for line in done.stderr.splitlines() if "--tam_num_experts 1" in line]
    assert len(said) == 1 and "train_mem.py: --tam_top_k (not given, so 2): expected" in said[0], done.stderr[-3000:]
    if launcher == "python":
        assert done.returncode == 2 and "Traceback" not in done.stderr
    else:  # what follows is the launcher's own report
        assert "exitcode  : 2" in done.stderr and "rank      : 0 " in done.stderr
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*.safetensors"))
