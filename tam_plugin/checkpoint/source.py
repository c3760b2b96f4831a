"""The checkpoint folder that is read: its configuration, its weight files, and what else lies there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.checkpoint.shards import Entry, Shard, open_shard
from tam_plugin.errors import InputError

CONFIG = "config.json"
JOURNAL = "tam_upcycle.jsonl"
SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf", ".onnx", ".index.json", ".part")


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
        """Let go of all files."""
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
    others, left_out = [], []
    for path in sorted(folder.iterdir()):
        if path.name in weights or path.name in (CONFIG, JOURNAL) or path.name.startswith(".git"):
            continue
        if path.name.endswith(".index.json") and path.is_file():
            continue  # rewritten
        if path.is_file() and not path.name.endswith(_WEIGHTS):
            others.append(path)
        else:
            left_out.append(path.name)
    return Source(folder, config, shards, holder, others, left_out)


def _weight_files(folder: Path) -> list[tuple[Path, set[str]]]:
    """Weight files as transformers would pick them, each with the names that an index puts there."""
    for single in SINGLE:
        index = folder / f"{single}.index.json"
        if (folder / single).is_file():
            return [(folder / single, set())]
        if not index.is_file():
            continue
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places or not all(_is_plain(name) for name in places.values()):
            raise InputError(f"{str(index)!r}: expected a weight_map of tensor names to file names of this folder")
        files: dict[str, set[str]] = {}
        for name, file in places.items():
            files.setdefault(file, set()).add(name)
        if absent := [file for file in sorted(files) if not (folder / file).is_file()]:
            raise InputError(
                f"{str(folder)!r} lacks {absent[0]} ({len(absent)} of the {len(files)} files that {index.name} names "
                "are missing): fetch it again"
            )
        return [(folder / file, files[file]) for file in sorted(files)]
    raise InputError(f"{str(folder)!r} holds no weights: expected {SINGLE[0]}, {SINGLE[1]} or an index of either")


def _is_plain(file: Any) -> bool:
    return isinstance(file, str) and file == Path(file).name and file not in ("", ".", "..")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{str(path.parent)!r} holds no {path.name}: expected a model checkpoint folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{str(path)!r} cannot be read as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise InputError(f"{str(path)!r} must hold a JSON object, found {type(values).__name__}")
    return values
