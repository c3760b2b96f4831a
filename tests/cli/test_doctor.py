"""``tam doctor`` on this machine as it is, and beside packages that are really broken."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tam_plugin.cli.main import main

BROKEN = {
    # What torchvision does on import; beside a torch of another build the operator is not there.
    "torchvision": "import torch\n\n\n@torch.library.register_fake('torchvision::nms')\ndef nms(*args): ...\n",
    # A wheel for CUDA beside torch's build for the CPU.
    "torchcodec": "import ctypes\nctypes.CDLL('libnvrtc.so.99')\n",
    # Native code that ends the process.
    "decord": "import os\nprint('decord was here')\nos.abort()\n",
    "lmms_eval": "import a_package_that_nobody_has\n",
    "llava": "",
}


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of broken packages that goes before all others; the doctor looks where its caller looks."""
    for name, code in BROKEN.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
        info = tmp_path / f"{name}-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    encoder = tmp_path / "llava" / "model" / "multimodal_encoder" / "siglip_encoder.py"
    encoder.parent.mkdir(parents=True)
    encoder.touch()
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def examine(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["doctor", "--json", *argv])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    import transformers

    code, report = examine(capsys, "--for", "ask", "--for", "decode")
    assert code == 0
    assert torch.__version__.startswith(report["packages"]["torch"])
    jobs = report["jobs"]
    assert jobs["ask"]["ready"] and transformers.__version__ in jobs["ask"]["detail"]
    readers = jobs["decode"]["readers"]
    assert readers["pyav"]["ready"] and "4 frames of sample.mp4" in readers["pyav"]["detail"]
    for reader in ("decord", "torchcodec"):
        if importlib.util.find_spec(reader) is None:
            assert not readers[reader]["ready"] and f"pip install '{reader}" in readers[reader]["remedy"]
    assert report["expert_backends"]["reference"] == "ready"


@pytest.mark.slow
def test_every_broken_package_is_named_and_takes_nothing_else_with_it(
    capsys: pytest.CaptureFixture[str], broken: Path
) -> None:
    code, report = examine(capsys)
    assert code == 0  # no job was asked for
    assert report["packages"]["torch"] is not None and report["extras"]["torchvision"] == "9.9"
    jobs, readers = report["jobs"], report["jobs"]["decode"]["readers"]
    assert list(jobs) == ["ask", "train", "evaluate", "serve", "decode"]
    assert not any(jobs[job]["ready"] for job in ("ask", "train", "evaluate", "serve"))
    assert "operator torchvision::nms does not exist" in jobs["ask"]["detail"]
    assert "torchvision 9.9 does not fit torch" in jobs["ask"]["remedy"]
    assert "pip uninstall torchvision" in jobs["ask"]["remedy"]
    assert "torchvision::nms" in jobs["train"]["detail"]  # transformers, which the host imports, does not load
    assert jobs["evaluate"]["remedy"] == "pip install 'a_package_that_nobody_has'"
    assert readers["pyav"]["ready"] and jobs["decode"]["ready"]
    assert "SIGABRT" in readers["decord"]["detail"]
    assert "libnvrtc.so.99: cannot open shared object file" in readers["torchcodec"]["detail"]
    assert "a build for CUDA" in readers["torchcodec"]["remedy"] and "torchcodec==" in readers["torchcodec"]["remedy"]
    assert report["hub_cache"].endswith(f"which cannot be read: {broken / 'cache'}: Not a directory")


@pytest.mark.slow
def test_a_command_beside_a_broken_package_names_the_cause(broken: Path, sample_clip: Path) -> None:
    for name in ("decord", "torchcodec"):
        shutil.rmtree(broken / name)
    command = [sys.executable, "-m", "tam_plugin.cli.main", "ask", str(sample_clip), "--query", "What is on the sign?"]
    environment = {**os.environ, "PYTHONPATH": str(broken)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1
    assert "operator torchvision::nms does not exist" in ran.stderr and "tam doctor" in ran.stderr


@pytest.mark.slow
def test_a_job_that_was_asked_for_decides_the_exit_code(capsys: pytest.CaptureFixture[str], broken: Path) -> None:
    assert main(["doctor", "--for", "decode"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tam-plugin ") and out.index("packages") < out.index("jobs") < out.index("by pyav")
    assert " ask " not in out and "patches of LLaVA-NeXT" not in out
    assert main(["doctor", "--for", "decode", "--for", "serve"]) == 1
