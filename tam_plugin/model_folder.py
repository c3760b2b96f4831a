"""The small files of a model's folder, looked at before a library opens them.

transformers, tokenizers and peft open every file of a folder by its name and believe what they find: they wait for a
pipe, follow an index to any path, and take an adapter's base from wherever it says.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import read_json
from tam_plugin.headers import Shapes, read_header

READ = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".safetensors", ".bin")
"""Endings of the files that libraries open in a model's folder."""
TOKENIZER_CONFIG = "tokenizer_config.json"
SETTINGS = (
    "added_tokens.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    TOKENIZER_CONFIG,
    "video_preprocessor_config.json",
    "vocab.json",
)
"""Files of JSON objects among them."""
ADAPTER_CONFIG = "adapter_config.json"
MAX_ENTRIES = 10_000
_LONGEST_PATTERN = 10_000
_CHARSMAP = "precompiled_charsmap"


def check_folder(folder: str | Path, *, adapters: bool = False) -> None:
    """Refuse a folder whose small files would make a library wait, or read files that are none of the folder's.

    Args:
        folder: the model's.
        adapters: whether the caller gives an adapter its base itself.

    Raises:
        InputError: a file is a pipe or a device, too large, or no JSON.
        ConfigError: it holds an adapter that nobody gives a base, or names files outside of it.
    """
    place = Path(folder)
    for file in entries(place):
        name = file.name
        if name == ADAPTER_CONFIG and not adapters:
            raise ConfigError(
                f"{str(place)!r} holds {ADAPTER_CONFIG}: an adapter takes its base from wherever it says; merge "
                "the two first, and name the result"
            )
        if not name.endswith(READ):
            continue
        check_regular(file)
        if name.endswith(".index.json"):
            check_index(file)
        elif name == "tokenizer.json":
            check_tokenizer(file)
        elif name in SETTINGS:
            values = read_any_json(file)
            longest = values.get("model_max_length") if name == TOKENIZER_CONFIG else None
            if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float)):
                raise ConfigError(f"{str(file)!r}: model_max_length = {str(longest)[:80]!r}: expected a number")


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, in the order of the names.

    Raises:
        InputError: it cannot be listed, or holds more than any model's folder.
    """
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry, _ in zip(found, range(MAX_ENTRIES + 1), strict=False))
    except OSError as error:
        raise InputError(f"{str(folder)!r} cannot be read: {error.strerror}") from error
    if len(names) > MAX_ENTRIES:
        raise InputError(f"{str(folder)!r} holds more than {MAX_ENTRIES:,} files: expected a model's folder")
    return [folder / name for name in names]


def check_regular(file: Path) -> None:
    """Refuse what is neither a regular file nor a folder; a link counts as what it points at.

    Raises:
        InputError: by name.
    """
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be looked up: {error.strerror}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{str(file)!r} is not a regular file: expected a model's folder without pipes and devices")


def read_any_json(file: Path) -> dict[str, Any]:
    """A JSON object of a model's folder; see :func:`~tam_plugin.files.read_json`."""
    try:
        return read_json(file)
    except FileNotFoundError as error:
        raise InputError(f"there is no file {str(file)!r}") from error


def check_index(file: Path) -> dict[str, set[str]]:
    """The weight files that an index names, each with its tensors.

    Raises:
        InputError: it is no index of files of its own folder.
    """
    places = read_any_json(file).get("weight_map")
    if not isinstance(places, dict) or not places or not all(is_plain(name) for name in places.values()):
        raise InputError(f"{str(file)!r}: expected a weight_map of tensor names to file names of this folder")
    files: dict[str, set[str]] = {}
    for name, shard in places.items():
        files.setdefault(shard, set()).add(name)
    return files


def is_plain(name: Any) -> bool:
    """Whether a value is the name of a file in the folder where it stands."""
    return isinstance(name, str) and name == Path(name).name and name not in ("", ".", "..") and "\0" not in name


def check_tokenizer(file: Path) -> None:
    """Refuse a ``tokenizer.json`` that would make a text longer than any tokenizer does.

    Raises:
        InputError: it is no JSON.
        ConfigError: a replacement or a template is endless.
    """
    values = read_any_json(file)
    for section in ("normalizer", "pre_tokenizer", "post_processor", "decoder", "padding", "truncation"):
        for name, value in _leaves(values.get(section)):
            long = isinstance(value, (str, list)) and len(value) > _LONGEST_PATTERN and name != _CHARSMAP
            if long or (section == "padding" and isinstance(value, int) and value > 1 << 24):
                raise ConfigError(
                    f"{str(file)!r}: {section}.{name} is longer than any tokenizer's: expected at most "
                    f"{_LONGEST_PATTERN:,} characters or entries"
                )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every list and plain value below a value, with the last key on the way."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, key)
        return
    yield name, value
    if isinstance(value, list) and len(value) <= _LONGEST_PATTERN:
        for child in value:
            yield from _leaves(child, name)


def weight_shapes(folder: str | Path) -> Shapes:
    """Shapes by name of all tensors in the weight files of a folder; no weight is read into memory.

    ``*.safetensors`` are read by their headers; where there are none, ``pytorch_model*.bin`` on the meta device.

    Raises:
        InputError: a file is damaged.
    """
    shapes: Shapes = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        shapes.update(read_header(file).shapes)
    if shapes:
        return shapes
    for file in sorted(Path(folder).glob("pytorch_model*.bin")):
        import torch

        from tam_plugin.headers import unreadable

        check_regular(file)
        try:
            tensors = torch.load(file, map_location="meta", weights_only=True)
            shapes.update((name, tuple(tensor.shape)) for name, tensor in tensors.items())
        except Exception as error:  # torch raises many kinds
            raise unreadable(file, error, "a state dict that torch.save wrote") from error
    return shapes
