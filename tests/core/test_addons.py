"""An installed add-on: its sampler, policy and reducer are found by name, by every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import numpy as np
from tam_plugin.budget import Policy, register_policy
from tam_plugin.video import register_sampler


class Head:
    name = "head"

    def __call__(self, video, num_frames, *, query, distribution):
        assert query == "What is it?" and distribution.task is not None
        return np.arange(num_frames)


class Three(Policy):
    max_frames = 3

    @classmethod
    def from_text(cls, text):
        return cls()

    def budget(self, distribution, duration_s, *, video_frames=None):
        return self.layout.budget(3, 2, task=distribution.task)

    def to_dict(self):
        return {"kind": "three"}


register_sampler("head", Head())
register_policy("three", Three)
"""

HOST = """
from tam_plugin.errors import ConfigError
from tam_plugin.patches.hosts import register_host
from tam_plugin.patches.hosts.llava_next import LlavaNext


class Mine(LlavaNext):
    name = "mine"

    def owns(self, config):
        return config.get("model_type") == "mine"

    def tensor_layout(self, config, names, where):
        raise ConfigError("this one is mine")


register_host(Mine())
"""


@pytest.fixture
def plan(tmp_path: Path, sample_clip: Path):
    """Runs ``tam plan`` beside an add-on whose module holds a text."""
    return lambda module, *argv: run(tmp_path, module, "plan", str(sample_clip), "--query", "What is it?", *argv)


def run(folder: Path, module: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """``tam`` with an add-on whose module holds a text."""
    (folder / "my_addon.py").write_text(module)
    info = folder / "my_addon-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_addon\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[tam_plugin.addons]\nmine = my_addon\n")
    command = [sys.executable, "-m", "tam_plugin.cli.main", *argv]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_its_names_are_found(plan):
    ran = plan(MODULE, "--sampler", "head", "--policy", "three:", "--json")
    values = json.loads(ran.stdout)
    assert (values["sampler"], values["num_frames"], values["timestamps_s"][0]) == ("head", 3, 0.0)
    assert values["timestamps_s"][-1] < 1  # its first frames, not three over the whole


def test_one_that_does_not_import_is_named(plan):
    ran = plan("1 / 0", "--sampler", "head")
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1
    assert "the add-on 'mine' (my_addon) cannot be imported: ZeroDivisionError" in ran.stderr


def test_nobody_else_pays_for_it(plan):
    assert plan("1 / 0").returncode == 0


def test_a_derived_host_takes_its_own_checkpoints(tmp_path):
    """Also those that a host of this project would take if it were asked alone."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "mine", "mm_vision_tower": "somewhere"}))
    ran = run(tmp_path, HOST, "flops", "--model", str(model))
    assert (ran.returncode, ran.stderr.strip()) == (2, "tam flops: this one is mine")


def test_doctor_looks_at_the_rest_beside_a_broken_one(tmp_path):
    ran = run(tmp_path, "1 / 0", "doctor", "--for", "serve", "--json")
    assert "the add-on 'mine' (my_addon) cannot be imported" in ran.stderr
    assert "serve" in json.loads(ran.stdout)["jobs"]
