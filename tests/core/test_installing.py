"""What setup.cfg asks for resolves and leaves a host's packages alone; advice on missing packages works as it is."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tam_plugin.errors import MissingDependencyError, reason_of, require
from tam_plugin.installing import install_command, installed_version, remedy_of, torchcodec_for

ROOT = Path(__file__).resolve().parents[2]
HOST_PINS = {
    "torch": "2.1.2",
    "transformers": "4.40.0.dev0",
    "numpy": "1.26.1",
    "safetensors": "0.4.3",
    "pillow": "10.3.0",
    "pyyaml": "6.0.1",
}
"""What LLaVA-NeXT's pyproject.toml and requirements.txt pin, of the packages that the plugin needs."""


@pytest.fixture(scope="module")
def options() -> dict[str, list[Requirement]]:
    """Extra → its requirements; "" is what is always installed."""
    parser = configparser.ConfigParser(inline_comment_prefixes=("#",))
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = {"": parser["options"]["install_requires"], **parser["options.extras_require"]}
    return {extra: [Requirement(line) for line in text.split("\n") if line] for extra, text in listed.items()}


def test_installing_beside_llava_next_replaces_none_of_its_packages(options: dict[str, list[Requirement]]) -> None:
    needed = {requirement.name: requirement.specifier for requirement in options[""]}
    refused = {
        name: f"{version} {needed[name]}"
        for name, version in HOST_PINS.items()
        if not needed[name].contains(version, prereleases=True)
    }
    assert refused == {}
    assert "pydantic" not in needed  # the host pins 1.10.8


@pytest.mark.slow
def test_every_extra_resolves_with_its_constraints(options: dict[str, list[Requirement]], tmp_path: Path) -> None:
    """Extras that resolve together resolve alone. Versions are looked up; nothing is installed."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    asked = subprocess.run([*pip, "index", "versions", "sniffio"], capture_output=True, text=True, check=False)
    if asked.returncode != 0:
        pytest.skip(f"the package index cannot be asked: {(asked.stderr.strip().splitlines() or ['no pip'])[-1]}")
    together = ",".join(extra for extra in options if extra not in ("", "eval"))

    def resolve(constraints: str, extras: str) -> dict[str, str]:
        report = tmp_path / f"{constraints}.json"
        command = [*pip, "install", "--dry-run", "--quiet", "--report", str(report)]
        command += ["-c", str(ROOT / constraints), f"{ROOT}[{extras}]"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
        chosen = {item["metadata"]["name"].replace("_", "-"): item["metadata"]["version"] for item in found}
        return {
            name: chosen.get(name) or installed_version(name) for name in ("torch", "torchcodec", "lmms-eval", "av")
        }

    with ThreadPoolExecutor(2) as pool:
        core, evaluation = pool.map(resolve, ("constraints.txt", "constraints-eval.txt"), (together, "eval"))
    assert core["torchcodec"].startswith(torchcodec_for(core["torch"]) + ".")
    assert evaluation["lmms-eval"] == "0.7.3" and int(evaluation["av"].split(".")[0]) < 16


def test_advice_names_packages_and_never_an_extra_of_a_package_on_no_index() -> None:
    assert install_command("matplotlib", "plots") == "pip install 'matplotlib>=3.8'"
    assert install_command("peft", "train") == "pip install 'accelerate>=0.29' 'peft>=0.10'"
    assert install_command("cv2") == "pip install 'opencv-python-headless'"
    with pytest.raises(MissingDependencyError) as missing:
        require("datasketch_of_nobody", needed_for="finding near-duplicates", extra="data")
    assert str(missing.value) == (
        "finding near-duplicates needs the package 'datasketch_of_nobody', which is not installed: "
        "pip install 'datasketch_of_nobody'"
    )
    advice = re.compile(r"(?<!`)tam-plugin\[")
    for folder in ("tam_plugin", "patches", "eval", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            found = [line for line in path.read_text(encoding="utf-8").splitlines() if advice.search(line)]
            assert [line for line in found if "``pip" not in line] == [], path


def test_a_package_that_does_not_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_library.py").write_text("import ctypes\nctypes.CDLL('libbroken.so.7')\n")
    (tmp_path / "broken_chain.py").write_text(
        "try:\n    import broken_library\n"
        "except OSError as error:\n    raise RuntimeError('decoder. See below.') from error\n"
    )
    (tmp_path / "lacks_another.py").write_text("import a_package_that_nobody_has.inner\n")
    with pytest.raises(
        MissingDependencyError, match=r"does not load \(OSError: libbroken\.so\.7: cannot open"
    ) as error:
        require("broken_library", needed_for="a test")
    assert error.value.remedy == "pip install --force-reinstall --no-deps 'broken_library'"
    with pytest.raises(MissingDependencyError, match=r"libbroken\.so\.7: .*; RuntimeError: decoder\. See below\.\)"):
        require("broken_chain", needed_for="a test")
    with pytest.raises(MissingDependencyError, match="pip install 'a_package_that_nobody_has'"):
        require("lacks_another", needed_for="a test")


def test_tracebacks_inside_a_message_lose_their_frames_alone() -> None:
    """The form in which torchcodec reports why each of its libraries did not load."""
    try:
        try:
            raise OSError("libavutil.so.56: cannot open shared object file")
        except OSError:
            import traceback

            raise RuntimeError(
                f"Could not load. Likely causes:\n  1. FFmpeg.\nFFmpeg version 4:\n{traceback.format_exc()}[end]"
            ) from None
    except RuntimeError as error:
        reason = reason_of(error)
        assert remedy_of(error, "torchcodec", reason).startswith("install FFmpeg 4 to 8")
    assert reason == (
        "RuntimeError: Could not load. Likely causes: 1. FFmpeg. FFmpeg version 4: "
        "OSError: libavutil.so.56: cannot open shared object file [end]"
    )


@pytest.mark.parametrize(
    ("torch", "torchcodec"), [("2.8.0", None), ("2.9.1", "0.9"), ("2.10.0+cu128", "0.10"), ("2.13.0+cpu", "0.13")]
)
def test_torchcodec_beside_a_torch(torch: str, torchcodec: str | None) -> None:
    assert torchcodec_for(torch) == torchcodec


def test_a_host_that_prints_why_it_does_not_import_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLaVA-NeXT's ``model/__init__.py`` prints the cause and goes on, so that its own error names a consequence."""
    from tam_plugin.patches.hosts.llava_next import import_llava

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_host.py").write_text(
        "print(\"Failed to import llava_qwen from llava.model. Error: No module named 'einops.x'\")\n"
        "from json import LlavaQwen\n"
    )
    with pytest.raises(
        MissingDependencyError, match=r"No module named 'einops\.x'; ImportError: cannot import"
    ) as error:
        import_llava("broken_host")
    assert "'einops'" in error.value.remedy and "'sentencepiece'" in error.value.remedy
