"""What setup.cfg ships is what the tree holds; installed names are the project's own."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = {"tam_plugin": ROOT / "tam_plugin", "tam_plugin.patches": ROOT / "patches", "tam_plugin.eval": ROOT / "eval"}


@pytest.fixture(scope="module")
def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def folders_with_code():
    for name, folder in PLACES.items():
        for init in folder.rglob("__init__.py"):
            inside = init.parent.relative_to(folder).parts
            yield ".".join((name, *inside))


def test_every_package_is_listed(setup_cfg):
    assert sorted(setup_cfg["options"]["packages"].split()) == sorted(folders_with_code())


def test_every_data_file_is_listed(setup_cfg):
    listed = set()
    for package, patterns in setup_cfg["options.package_data"].items():
        folder = ROOT / package.replace("tam_plugin.eval", "eval").replace(".", "/")
        for pattern in patterns.replace("\n", ",").split(","):
            listed |= {p for p in folder.glob(pattern.strip()) if p.is_file()} if pattern.strip() else set()
    held = {
        p
        for folder in PLACES.values()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix not in (".py", ".pyc") and "__pycache__" not in p.parts
    }
    assert held == listed


def test_installed_names_are_under_tam_plugin(tmp_path):
    code = (
        "import importlib.util as u, tam_plugin.patches, tam_plugin.eval; "
        "print([u.find_spec(n) is None for n in ('patches', 'eval')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[True, True]"


def test_nothing_is_pickled_and_no_remote_code_is_trusted():
    for folder in PLACES.values():
        for path in folder.rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "import pickle" not in text and "trust_remote_code=True" not in text, path
            assert "torch.load(" not in text or "weights_only=True" in text, path
            assert "import yaml" not in text or path.name == "files.py", path  # the one loader
