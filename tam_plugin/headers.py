"""What a safetensors file holds, by its header alone: read before anything of the size that it states is made."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.files import opened

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """A checked header.

    Attributes:
        entries: dtype (``dtype``), shape (``shape``) and place in the data (``data_offsets``) by name, in the order of
            the data.
        data_start: byte of the file at which the data begins.
    """

    entries: dict[str, dict[str, Any]]
    data_start: int

    @property
    def shapes(self) -> Shapes:
        """Shapes by name."""
        return {name: tuple(entry["shape"]) for name, entry in self.entries.items()}


def read_header(path: str | Path) -> Header:
    """The header of a safetensors file, checked against the file's length.

    Raises:
        InputError: it is no regular file, no safetensors file, or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with opened(path) as file:
            with safe_open(str(path), framework="numpy"):
                pass  # checks the header: its length, the shapes, the offsets, the length of the file
            length = int.from_bytes(file.read(8), "little")
            entries: dict[str, dict[str, Any]] = json.loads(file.read(length))
    except (OSError, ValueError, SafetensorError) as error:
        raise unreadable(path, error, "a whole safetensors file") from error
    entries.pop("__metadata__", None)
    ordered = dict(sorted(entries.items(), key=lambda item: item[1]["data_offsets"]))
    return Header(ordered, 8 + length)


def unreadable(path: str | Path, error: Exception, expected: str) -> InputError:
    """The error for a weight file that is not what it should be."""
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"{str(path)!r} cannot be read ({first}): expected {expected}; fetch the file again")


def check_fits(model: Any, held: Shapes, where: str) -> None:
    """Refuse a configuration that makes more parameters than the weights hold, before memory is taken for them.

    Args:
        model: a torch module on the meta device.
        held: shapes of the weights.
        where: the checkpoint, for the message.

    Raises:
        ConfigError: with both numbers.
    """
    wanted = elements(tuple(p.shape) for p in model.parameters()) + elements(tuple(b.shape) for b in model.buffers())
    found = elements(held.values())
    if wanted > found + found // 50 + _SPARE:
        raise ConfigError(
            f"{where}: config.json makes {wanted:,} parameters, the weights hold {found:,}: they do not belong together"
        )


_SPARE = 1 << 22
"""Tables of positions and a new head, which no file holds."""


def elements(shapes: Iterable[tuple[int, ...]]) -> int:
    """Elements of all tensors."""
    return sum(math.prod(shape) for shape in shapes)
