"""The checkpoint folder that is read: its configuration, its weight files, and what else lies there."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin import files
from tam_plugin.bounds import check_sizes
from tam_plugin.checkpoint.shards import Entry, Shard, open_shard
from tam_plugin.errors import InputError
from tam_plugin.model_folder import check_index, entries

CONFIG = "config.json"
JOURNAL = "tam_upcycle.jsonl"
MAX_SIDE_BYTES = 256 << 20
"""A small file beside the weights, at most; the largest tokenizers have 35 MB."""
SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf", ".onnx", ".index.json", ".part")
_BLOB = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """A checkpoint on disk.

    Attributes:
        folder: where it is.
        config: config.json.
        shards: its weight files, in the order of their names.
        holder: the shard of each tensor.
        others: the files beside them that go along (tokenizer, generation and preprocessor configuration, …).
        left_out: names that do not: folders and weights of other kinds.
    """

    folder: Path
    config: dict[str, Any]
    shards: list[Shard]
    holder: dict[str, Shard] = field(repr=False)
    others: list[Path]
    left_out: list[str]

    def entry(self, name: str) -> Entry:
        """Dtype and shape of a tensor."""
        return self.holder[name].tensors[name]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name."""
        return {name: shard.tensors[name].shape for name, shard in self.holder.items()}

    def size(self, name: str) -> int:
        """Elements of a tensor."""
        return math.prod(self.entry(name).shape)

    def identity(self) -> list[list[Any]]:
        """Name, bytes and time of change of every file that a conversion depends on."""
        return identity([self.folder / CONFIG, *(shard.path for shard in self.shards), *self.others])

    def close(self) -> None:
        """Close all files."""
        for shard in self.shards:
            shard.close()


def identity(files: Iterable[Path]) -> list[list[Any]]:
    """Name, bytes and time of change of files."""
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(files)]


def open_source(folder: str | Path) -> Source:
    """Open a checkpoint folder and check that its files are there and whole.

    Raises:
        InputError: it is no checkpoint, a shard is missing or damaged, or a tensor is in two of them.
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"{str(folder)!r} {problem}: expected a checkpoint folder with {CONFIG} and its weights")
    config = read_json(folder / CONFIG)
    check_sizes(config, str(folder / CONFIG))
    shards: list[Shard] = []
    holder: dict[str, Shard] = {}
    for path, wanted in _weight_files(folder):
        shard = open_shard(path)
        shards.append(shard)
        if missing := sorted(wanted - shard.tensors.keys()):
            raise InputError(f"{str(path)!r} holds no {missing[0]}, which the index says it does: fetch the file again")
        for name in shard.tensors:
            if name in holder:
                raise InputError(f"{name} is in both {holder[name].path.name} and {path.name} of {str(folder)!r}")
            holder[name] = shard
    weights = {shard.path.name for shard in shards}
    others: list[Path] = []
    left_out: list[str] = []
    for path in entries(folder):
        if path.name in weights or path.name in (CONFIG, JOURNAL) or path.name.startswith(".git"):
            continue
        if path.name.endswith(".index.json") and path.is_file():
            continue  # rewritten
        if path.name.endswith(_WEIGHTS):
            left_out.append(path.name)
        elif reason := not_taken(path):
            left_out.append(f"{path.name} ({reason})")
        else:
            others.append(path)
    return Source(folder, config, shards, holder, others, left_out)


def not_taken(path: Path) -> str | None:
    """Why a small file of a checkpoint folder does not go along, in words; None if it does.

    A folder from others could hold links to any file of this machine, and the copy would carry that file on.
    """
    if path.is_dir():
        return "a folder"
    if not path.is_file():
        return "a broken link" if path.is_symlink() else "not a regular file"
    if not stays(path):
        return "a link out of the folder; copy the file itself to take it along"
    size = path.stat().st_size
    return f"{size:,} bytes; small files have at most {MAX_SIDE_BYTES:,}" if size > MAX_SIDE_BYTES else None


def stays(path: Path) -> bool:
    """Whether a file lies in its folder, or is a link into the blobs of the same repository of a hub cache.

    Such a cache holds ``models--NAME/snapshots/REVISION/FILE``, a link to ``models--NAME/blobs/HASH``.
    """
    place, root = Path(os.path.realpath(path)), Path(os.path.realpath(path.parent))
    if root in place.parents:
        return True
    in_cache = root.parent.name == "snapshots" and place.parent == root.parent.parent / "blobs"
    return in_cache and _BLOB.fullmatch(place.name) is not None


def _weight_files(folder: Path) -> list[tuple[Path, set[str]]]:
    """Weight files as transformers would pick them, each with the names that an index puts there."""
    for single in SINGLE:
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return [(folder / single, set())]
        if not index.is_file():
            continue
        _check_stays(index)
        shards = check_index(index)
        if absent := [file for file in sorted(shards) if not (folder / file).is_file()]:
            raise InputError(
                f"{str(folder)!r} lacks {absent[0]} ({len(absent)} of the {len(shards)} files that {index.name} names "
                "are missing): fetch it again"
            )
        return [(folder / file, shards[file]) for file in sorted(shards)]
    raise InputError(f"{str(folder)!r} holds no weights: expected {SINGLE[0]}, {SINGLE[1]} or an index of either")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: it cannot be read, is something else, or is a link to a file of another folder.
    """
    _check_stays(path)
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise InputError(f"{str(path.parent)!r} holds no {path.name}: expected a model checkpoint folder") from None


def _check_stays(path: Path) -> None:
    if path.is_symlink() and path.exists() and not stays(path):
        raise InputError(
            f"{str(path)!r} is a link out of its folder, to {os.path.realpath(path)!r}: expected the file itself, or a "
            "link into the blobs of a hub cache"
        )
