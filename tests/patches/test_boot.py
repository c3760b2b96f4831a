"""What an installed plugin does at interpreter start, and when a package named llava is imported."""

from __future__ import annotations

import os
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


def run(site, code, **env):
    start = f"import site; site.addsitedir({str(site)!r})\n"
    full = {**os.environ, "PYTHONPATH": "", **env}
    done = subprocess.run(
        [sys.executable, "-S", "-c", start + code], capture_output=True, text=True, check=False, env=full, cwd=site
    )
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize("is_next", [True, False])
def test_starts_on_llava_next_and_leaves_the_first_llava_alone(site, tmp_path, is_next):
    encoder = tmp_path / "llava" / "model" / "multimodal_encoder"
    encoder.mkdir(parents=True)
    (tmp_path / "llava" / "__init__.py").write_text("")
    if is_next:
        (encoder / "siglip_encoder.py").write_text("")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); started = []\n"
        "import tam_plugin.patches.activation as a\n"
        "from tam_plugin.patches.lifecycle import Patcher\n"
        "a.patcher = lambda: started.append(1) or Patcher([], rebind='llava')\n"
        "import llava\n"
        "print(bool(started), sum(type(f).__name__ == 'Waiter' for f in sys.meta_path))"
    )
    assert run(site, code) == f"{is_next} 0"
