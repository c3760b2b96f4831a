"""What tells evaluations with the same ``--model_args`` apart: weights, policy and Inductor behind the names."""

from __future__ import annotations

from typing import Any

from tam_plugin.budget import Policy
from tam_plugin.hub import TEXT_FILES, WEIGHTS, model_folder
from tam_plugin.inductor.stored import inductor_fingerprint
from tam_plugin.storage import file_sha256, values_sha256

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def weights_fingerprint(name_or_path: str | None) -> str:
    """SHA-256 over a checkpoint's small files and the names, sizes and times of change of its weight files.

    Weights are not read: at tens of gigabytes that takes longer than many a task. A copy of a checkpoint counts as
    another one.

    Args:
        name_or_path: a folder, or a hub name that is in the local cache; None gives an empty text.
    """
    if name_or_path is None:
        return ""
    folder = model_folder(name_or_path, TEXT_FILES, WEIGHTS)
    parts: dict[str, Any] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix in _WEIGHTS:
            status = file.stat()
            parts[file.name] = [status.st_size, status.st_mtime_ns]
        elif file.is_file() and file.suffix in (".json", ".txt", ".model"):
            parts[file.name] = file_sha256(file)
    return values_sha256(parts)


def evaluation_fingerprint(weights: tuple[str | None, ...], policy: Policy, inductor: str | None) -> dict[str, Any]:
    """Plain values that differ where weights, policy or Inductor do."""
    return {
        "weights": [weights_fingerprint(name) for name in weights],
        "policy": values_sha256(policy.to_dict()),
        "inductor": inductor_fingerprint(inductor)["sha256"],
    }
