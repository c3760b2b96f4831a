"""What an installed plugin does at interpreter start, and when a package named llava is imported."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What a wheel puts into site-packages, built by the project's own setup."""
    pytest.importorskip("setuptools", reason="building needs setuptools")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def run(site, code, *, python=sys.executable, errors="", options=("-S",), **env):
    """What ``code`` prints; nothing else than ``errors`` may stand on stderr."""
    start = f"import site; site.addsitedir({str(site)!r})\n" if "-S" in options else ""
    full = {**os.environ, "PYTHONPATH": "", **env}
    command = [str(python), *options, "-c", start + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=full, cwd=site)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(errors, done.stderr), done.stderr
    return done.stdout.strip()


WAITERS = "import sys; print(sum(type(f).__name__ == 'Waiter' for f in sys.meta_path))"


def test_wheel_holds_both_files(site):
    assert (site / "zz_tam_plugin.pth").read_text() == "import _tam_plugin_boot\n"
    assert (site / "_tam_plugin_boot.py").read_text() == (ROOT / "patches" / "boot.py").read_text()
    assert (site / "tam_plugin" / "patches" / "activation.py").is_file()


def test_waits_at_start_and_imports_nothing(site):
    assert run(site, WAITERS) == "1"
    assert run(site, WAITERS, TAM_PLUGIN="0") == "0"
    assert (
        run(site, "import sys; print([m for m in sys.modules if m.split('.')[0] in ('tam_plugin', 'torch')])") == "[]"
    )


def write_llava(folder, *, is_next=True):
    """A package ``llava`` with a module ``seen`` of its own; a zip file of it is as good."""
    encoder = folder / "llava" / "model" / "multimodal_encoder"
    encoder.mkdir(parents=True)
    (folder / "llava" / "__init__.py").write_text("")
    if is_next:
        (encoder / "siglip_encoder.py").write_text("")
    return folder


START = """import sys; sys.path.insert(0, {path!r}); started = []
import tam_plugin.patches.activation as a
from tam_plugin.patches.lifecycle import Patcher
a.patcher = lambda: started.append(1) or Patcher([], rebind='llava')
"""
IS_STARTED = "print(bool(started), sum(type(f).__name__ == 'Waiter' for f in sys.meta_path))\n"


@pytest.mark.parametrize("kind", ["llava-next", "zip", "first llava", "namespace"])
def test_starts_on_llava_next_and_leaves_others_of_that_name_alone(site, tmp_path, kind):
    path = write_llava(tmp_path, is_next=kind != "first llava")
    if kind == "zip":
        path = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "llava")
    if kind == "namespace":  # a folder of that name in the working directory, say
        shutil.rmtree(tmp_path / "llava" / "model")
        (tmp_path / "llava" / "__init__.py").unlink()
    answer = "False 1" if kind == "namespace" else f"{kind != 'first llava'} 0"
    assert run(site, START.format(path=str(path)) + "import llava\n" + IS_STARTED) == answer


def test_to_look_for_llava_starts_nothing(site, tmp_path):
    look = "import importlib.util; assert importlib.util.find_spec('llava').loader.get_filename('llava')\n"
    assert run(site, START.format(path=str(write_llava(tmp_path))) + look + IS_STARTED) == "False 1"


def test_the_finder_behind_is_asked_for_every_module(site, tmp_path):
    """Such as the one of an editable install, which alone knows where the package is."""
    code = f"""import importlib.machinery, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        asked.append(name)
        return importlib.machinery.PathFinder.find_spec(name, [{str(write_llava(tmp_path, is_next=False))!r}])
asked = []
sys.meta_path.insert(1, Finder())
import llava
print(asked[0])
"""
    assert run(site, code) == "llava"


@pytest.mark.parametrize("wrong", ["gone", "broken", "requirement"])
def test_a_plugin_that_does_not_work_is_one_line_and_breaks_nothing(site, tmp_path, wrong):
    """The files beside the package outlive a deleted clone; a half of it, or a package it needs, can be missing."""
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    if wrong == "gone":
        shutil.rmtree(copy / "tam_plugin")
    elif wrong == "broken":
        (copy / "tam_plugin" / "errors.py").write_text("def (:\n")
    code = (
        f"import sys; sys.path.insert(0, {str(write_llava(tmp_path / 'host'))!r})\nimport llava; print(llava.__name__)"
    )
    assert run(copy, "print(1)") == "1"
    assert run(copy, code, errors=r"tam_plugin does not work here \(.*\): llava runs without it; .*\n") == "llava"


def test_executed_twice_it_waits_once(site):
    code = "import importlib, _tam_plugin_boot\nimportlib.reload(_tam_plugin_boot)\n"
    assert run(site, code + WAITERS) == "1"


def test_in_an_environment_of_its_own(site, tmp_path):
    """``-I`` leaves installed packages active, ``-S`` does not."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    found = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    for file in site.glob("*tam_plugin*.p*"):
        shutil.copy(file, found)
    counts = {option: run(tmp_path, WAITERS, python=python, options=(option,)) for option in ("-I", "-E")}
    assert counts == {"-I": "1", "-E": "1"}
    bare = subprocess.run([python, "-S", "-c", WAITERS], capture_output=True, text=True, check=True)
    assert bare.stdout.strip() == "0"
