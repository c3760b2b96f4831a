"""Weight files, read a piece at a time.

The header of a file names its tensors; the bytes come by ``pread``, because the pages of a memory map
count as the process's memory, and shards are as large as 5 GB.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError
from tam_plugin.files import opened
from tam_plugin.headers import read_header, unreadable

if TYPE_CHECKING:
    import torch

ITEM_BYTES = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
"""Bytes per element, by the names of safetensors."""

REMAP_BYTES = 256 << 20
"""A mapped ``.bin`` file is mapped anew after so many bytes, so that its pages do not add up."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: dtype by safetensors' name, shape, bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


class Shard:
    """One weight file; ``tensors`` says what it holds, in the order of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Entry] = {}

    @property
    def linkable(self) -> bool:
        """Whether the file can be taken over as it is."""
        return True

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Bytes ``[start, stop)`` of a tensor."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file."""


class SafetensorsShard(Shard):
    """A ``.safetensors`` file.

    Raises:
        InputError: it is damaged, or holds a dtype that is not known.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        header = read_header(path)
        self._starts: dict[str, int] = {}
        for name, value in header.entries.items():
            if value["dtype"] not in ITEM_BYTES:
                raise InputError(f"{str(path)!r}: {name} has dtype {value['dtype']}: expected {', '.join(ITEM_BYTES)}")
            self.tensors[name] = Entry(value["dtype"], tuple(value["shape"]))
            self._starts[name] = header.data_start + value["data_offsets"][0]
        self._fd = os.open(path, os.O_RDONLY)

    def read(self, name: str, start: int, stop: int) -> bytes:
        """See :class:`Shard`."""
        at = self._starts[name]
        parts = []
        while start < stop:
            part = os.pread(self._fd, stop - start, at + start)
            if not part:
                raise InputError(f"{str(self.path)!r} ends inside {name}: it was changed while it was read")
            parts.append(part)
            start += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """See :class:`Shard`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TorchShard(Shard):
    """A ``.bin`` file of torch, mapped; its tensors are rewritten as safetensors.

    Raises:
        InputError: it is damaged, holds more than tensors, or is in torch's format from before 1.6.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._mapped: dict[str, torch.Tensor] | None = None
        self._read_bytes = 0
        for name, tensor in self._tensors().items():
            kind = _dtype_name(tensor)
            if kind is None or not isinstance(name, str):
                raise InputError(f"{str(path)!r}: {name} is not a tensor of a supported dtype")
            held = tensor.untyped_storage().nbytes()
            if tensor.numel() * tensor.element_size() > held:
                raise InputError(
                    f"{str(path)!r}: {name} has shape {list(tensor.shape)} over {held} bytes: "
                    "expected a tensor whose elements are all in the file"
                )
            self.tensors[name] = Entry(kind, tuple(tensor.shape))

    @property
    def linkable(self) -> bool:
        """See :class:`Shard`."""
        return False

    def read(self, name: str, start: int, stop: int) -> bytes:
        """See :class:`Shard`."""
        import torch

        if self._read_bytes > REMAP_BYTES:
            self.close()
        self._read_bytes += stop - start
        tensor = self._tensors()[name]
        size = ITEM_BYTES[self.tensors[name].dtype]
        first, last = start // size, -(-stop // size)
        flat = tensor.view(-1)[first:last] if tensor.is_contiguous() else tensor.flatten()[first:last]
        data = flat.contiguous().view(torch.uint8).numpy().tobytes()
        return data[start - first * size :][: stop - start]

    def close(self) -> None:
        """See :class:`Shard`."""
        self._mapped, self._read_bytes = None, 0

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        if self._mapped is None:
            try:
                with opened(self.path):
                    pass  # a regular file: torch would wait for a pipe
                self._mapped = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # torch raises many kinds
                raise unreadable(self.path, error, "a state dict that torch.save wrote") from error
            if not isinstance(self._mapped, dict):
                raise InputError(f"{str(self.path)!r} holds a {type(self._mapped).__name__}: expected a state dict")
        return self._mapped


def open_shard(path: Path) -> Shard:
    """The shard behind a file, by its ending."""
    return SafetensorsShard(path) if path.suffix == ".safetensors" else TorchShard(path)


def torch_dtype(name: str) -> torch.dtype | None:
    """torch's dtype for safetensors' name, if it is one that a layer computes in."""
    import torch

    floats = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    return floats.get(name)


def _dtype_name(tensor: Any) -> str | None:
    import torch

    if not isinstance(tensor, torch.Tensor):
        return None
    prefixes = {"float": "F", "bfloat": "BF", "int": "I", "uint": "U"}
    name = str(tensor.dtype).removeprefix("torch.")
    bits = name.lstrip("abcdefghijklmnopqrstuvwxyz")
    found = "BOOL" if name == "bool" else f"{prefixes.get(name.removesuffix(bits), '?')}{bits}"
    return found if found in ITEM_BYTES else None
