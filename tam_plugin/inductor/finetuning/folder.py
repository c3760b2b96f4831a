"""The folder that fine-tuning writes: free, ours and unfinished, ours and finished, or somebody else's.

A checkpoint counts as finished when its ``config.json`` is there; it is written last, and removed first when the
rest is replaced. While stage 1 trains, the folder holds ``training/`` with the run's settings and its checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

from tam_plugin.config import short
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import storage
from tam_plugin.storage import move_files, replace_file

RUN_FOLDER = "training"
RUN_FILE = "run.json"


def check_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a finished Inductor or something else fills.

    Raises:
        InputError: it is a file, holds a finished Inductor and ``overwrite`` is False, or holds anything else.
    """
    if not str(out).strip() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {str(out)!r}: expected the name of a folder")
    if not out.exists() or not any(out.iterdir()) or _settings(out) is not None:
        return
    if not _holds_inductor(out):
        held = ", ".join(sorted(p.name for p in out.iterdir())[:3])
        raise InputError(f"--out {str(out)!r} holds something that is no Inductor ({held}); give a new folder")
    if not overwrite:
        raise InputError(f"--out {str(out)!r} holds a finished Inductor; give a new folder, or --overwrite")


def unfinished(out: Path, settings: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether ``out`` holds a run of the same settings that did not come to its end.

    Raises:
        InputError: as :func:`check_free`.
        ConfigError: a run of other settings is there, and ``overwrite`` is False.
    """
    check_free(out, overwrite=overwrite)
    found = _settings(out)
    if found is None or (overwrite and found != settings):
        return False
    changed = [name for name in {**found, **settings} if found.get(name) != settings.get(name)]
    if changed:
        was = "; ".join(f"{n} was {short(found.get(n))}, is {short(settings.get(n))}" for n in changed[:3])
        raise ConfigError(f"--out {str(out)!r} holds an unfinished run of other settings ({was}); --overwrite drops it")
    return True


def begin(out: Path, settings: dict[str, Any]) -> None:
    """Make ``out`` ready for a new run: what an earlier one left is removed, its settings are noted."""
    (out / storage.CONFIG_FILE).unlink(missing_ok=True)
    shutil.rmtree(out / RUN_FOLDER, ignore_errors=True)
    (out / RUN_FOLDER).mkdir(parents=True)
    with replace_file(out / RUN_FOLDER / RUN_FILE) as file:
        file.write(json.dumps(settings, indent=2) + "\n")


def last_checkpoint(out: Path) -> Path | None:
    """The last checkpoint that was written to its end; later torn ones are removed."""
    folders = [p for p in (out / RUN_FOLDER).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for folder in sorted(folders, key=lambda p: -int(p.name.removeprefix("checkpoint-"))):
        with contextlib.suppress(OSError, ValueError):
            json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))  # the last file of a checkpoint
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    return None


def publish(staging: Path, out: Path) -> None:
    """Move a complete checkpoint from ``staging`` to ``out``, ``config.json`` last, and drop what a run left."""
    out.mkdir(parents=True, exist_ok=True)
    (out / storage.CONFIG_FILE).unlink(missing_ok=True)
    for stale in out.glob("model*.safetensors*"):
        stale.unlink()
    move_files(staging, out, last=storage.CONFIG_FILE)
    shutil.rmtree(out / RUN_FOLDER, ignore_errors=True)


def _holds_inductor(out: Path) -> bool:
    try:
        config = json.loads((out / storage.CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "id2label" in config and "tam_temperature" in config


def _settings(out: Path) -> dict[str, Any] | None:
    """Settings of the unfinished run in ``out``; None when there is none."""
    if (out / storage.CONFIG_FILE).exists():
        return None
    try:
        values = json.loads((out / RUN_FOLDER / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
