"""Models by name: a folder, or a name on the Hugging Face hub whose files are brought into the local cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tam_plugin.errors import InputError

CONFIG_FILES = ("config.json",)
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "NOTICE*")
"""What belongs to a checkpoint beside its weights: configuration, tokenizer, licence."""
WEIGHTS = ("*.safetensors", "*.bin")
"""Kinds of weight files; the first kind that a repository has is enough."""

_FILES = (".json", ".yaml", ".yml", ".safetensors", ".bin", ".pt")


def is_hub_name(name: str) -> bool:
    """Whether a name that is no folder can be one of the hub, ``OWNER/NAME`` or ``NAME``, rather than a path."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not name.endswith(_FILES)


def missing_folder(name: str) -> str | None:
    """What is wrong with a model's name that can only be a folder's but no such folder exists; None for any other name.

    A name like ``OWNER/MODEL`` may be a folder or the hub's, so nothing is said of it here.
    """
    if is_hub_name(name) or os.path.isdir(name):
        return None
    if os.path.exists(name):
        return f"{name!r} is a file: expected a model checkpoint directory"
    if name.startswith("~") and os.path.isdir(whole := os.path.expanduser(name)):
        return f"there is no folder {name!r}: the shell did not expand the ~; write {whole!r}"
    return f"there is no folder {name!r} on this machine: expected a model checkpoint directory or a hub name"


def model_folder(
    name_or_path: str | os.PathLike[str],
    files: Sequence[str] = TEXT_FILES,
    weights: Sequence[str] = (),
    *,
    option: str = "",
    expected: str = "a model's folder",
) -> Path:
    """The folder of a model: the one that is named, or the local cache's of a hub name.

    A folder is taken as it is. Files of a hub name that are not in the cache are downloaded; with ``HF_HUB_OFFLINE=1``,
    or where the hub cannot be reached, what the cache holds is taken.

    Args:
        name_or_path: a folder or a hub name.
        files: patterns of the files that are needed, at the top of the repository.
        weights: patterns of weight files; files of the first one that the repository has any of are brought.
        option: the argument that the name was given with, for messages.
        expected: what the folder is, for messages.

    Raises:
        InputError: neither a folder nor a hub name that can be read; the message says what to do.
    """
    name = os.fspath(name_or_path)
    path = Path(name).expanduser()
    before = f"{option} " if option else ""
    if name.strip() and path.is_dir():
        return path
    if path.exists() or not is_hub_name(name):
        problem = "is not a folder" if name.strip() and path.exists() else "does not exist"
        raise InputError(f"{before}{name!r} {problem}: expected {expected}, or a hub name OWNER/NAME")
    if not weights:
        return _snapshot(name, files, before)
    for kind in weights:
        folder = _snapshot(name, (*files, kind), before)
        if any(folder.glob(kind)):
            return folder
    raise InputError(
        f"{before}{name!r}: no weights ({', '.join(weights)}) are in the repository or in what the local cache holds "
        f"of it ({str(folder)!r}); {_remedy(name)}"
    )


def _snapshot(name: str, patterns: Sequence[str], before: str) -> Path:
    import huggingface_hub
    from huggingface_hub.utils import GatedRepoError, RepositoryNotFoundError
    from tqdm.auto import tqdm

    missing = f"{before}{name!r} does not exist as a folder, and the hub's model of that name"
    try:
        folder = huggingface_hub.snapshot_download(
            name,
            allow_patterns=[*patterns],
            ignore_patterns=["*/*"],
            tqdm_class=tqdm if sys.stderr.isatty() else None,
        )
    except GatedRepoError as error:
        raise InputError(
            f"{missing} is gated: accept its terms at https://huggingface.co/{name} and run 'hf auth login'"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{missing} does not exist or is private (then run 'hf auth login'); check it") from error
    except Exception as error:  # the HTTP library's own errors, a full disk, a damaged cache
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        why = "HF_HUB_OFFLINE is set" if offline else f"the hub cannot be read: {_first_line(error)}"
        raise InputError(f"{missing} is not whole in the local cache ({why}); {_remedy(name)}") from error
    return Path(folder)


def _remedy(name: str) -> str:
    return f"run 'hf download {name}' where the hub can be reached, or give the folder of a copy"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
