"""What the name of a model stands for: a folder on this machine, or a model on the Hugging Face hub."""

from __future__ import annotations

import os


def is_path(name: str) -> bool:
    """Whether a model's name can only be a folder: it begins with ``.``, ``/`` or ``~``, or has several slashes."""
    return name.startswith((".", os.sep, "~")) or name.count("/") > 1


def missing_folder(name: str) -> str | None:
    """What is wrong with a model's name that is a path without a folder behind it; None for every other name.

    A name like ``OWNER/MODEL`` may be either, so nothing is said of it here.
    """
    if not is_path(name) or os.path.isdir(name):
        return None
    if os.path.exists(name):
        return f"{name!r} is a file: expected a model checkpoint directory"
    if name.startswith("~") and os.path.isdir(whole := os.path.expanduser(name)):
        return f"there is no folder {name!r}: the shell did not expand the ~; write {whole!r}"
    return f"there is no folder {name!r} on this machine: expected a model checkpoint directory or a hub name"
