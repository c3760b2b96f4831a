"""A model's name is a folder or a hub name; a folder that is missing is said to be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tam_plugin.hub import is_hub_name, missing_folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./llava", True),
        ("../llava", True),
        ("/models/llava", True),
        ("~/llava", True),
        ("models/llava/7b", True),
        ("lmms-lab/LLaVA-Video-7B-Qwen2", False),
        ("gpt2", False),
    ],
)
def test_what_can_only_be_a_folder(name: str, expected: bool) -> None:
    assert is_hub_name(name) is not expected
    assert (missing_folder(name) is not None) is expected


def test_what_is_there_and_what_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_folder(str(tmp_path)) is None
    (tmp_path / "file").touch()
    assert "is a file" in str(missing_folder(str(tmp_path / "file")))
    assert f"there is no folder '{tmp_path}/llava' on this machine" in str(missing_folder(f"{tmp_path}/llava"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "llava").mkdir()
    assert f"write '{tmp_path}/llava'" in str(missing_folder("~/llava"))
