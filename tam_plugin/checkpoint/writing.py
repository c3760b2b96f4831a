"""Weight files, written a piece at a time: a safetensors header first, then bytes at their places.

Nothing appears under its own name before it is whole and on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.checkpoint.shards import ITEM_BYTES, Entry, Shard, torch_dtype
from tam_plugin.storage import replace_descriptor

if TYPE_CHECKING:
    import torch

CHUNK_BYTES = 8 << 20
"""Bytes that are in memory at once."""


@dataclass(frozen=True)
class Region:
    """Bytes ``[start, stop)`` of a tensor of the source."""

    shard: Shard
    name: str
    start: int
    stop: int

    @classmethod
    def whole(cls, shard: Shard, name: str) -> Region:
        """The region that covers a whole tensor."""
        return cls(shard, name, 0, shard.tensors[name].nbytes)


@dataclass(frozen=True)
class LowRank:
    """What LoRA adds to a matrix ``[out, in]``: ``scale`` · B · A.

    Attributes:
        a: all of A, ``[r, in]``.
        b: all of B, ``[out, r]``.
        scale: the factor before them.
    """

    a: Region
    b: Region
    scale: float


@dataclass(frozen=True)
class Output:
    """A tensor to be written: literal bytes, or regions of the source.

    Attributes:
        name: its name.
        entry: dtype and shape.
        regions: where its bytes come from, one region after another; with ``mean`` their elementwise average.
        mean: take the average, in float64 and rounded once, so that equal regions give their very bits.
        low_rank: add this to the one region, a matrix; in float32 (float64 for such a matrix) and rounded once.
        data: its bytes, if they come from nowhere.
    """

    name: str
    entry: Entry
    regions: tuple[Region, ...] = ()
    mean: bool = False
    low_rank: LowRank | None = None
    data: bytes | None = None


@dataclass
class Traffic:
    """Bytes that went through this process, with a callback for each piece written."""

    read: int = 0
    written: int = 0
    on_write: Callable[[int], object] = lambda _: None

    def wrote(self, count: int) -> None:
        """Count a piece that was written."""
        self.written += count
        self.on_write(count)


def header_of(outputs: list[Output]) -> tuple[bytes, dict[str, int]]:
    """A file's header, and the place of each tensor in the file."""
    offset, places = 0, {}
    table: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    for output in sorted(outputs, key=lambda o: (-ITEM_BYTES[o.entry.dtype], o.name)):
        end = offset + output.entry.nbytes
        table[output.name] = {
            "dtype": output.entry.dtype,
            "shape": list(output.entry.shape),
            "data_offsets": [offset, end],
        }
        places[output.name], offset = offset, end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + place for name, place in places.items()}


def file_bytes(outputs: list[Output]) -> int:
    """Length of the file that :func:`write_shard` makes."""
    return len(header_of(outputs)[0]) + sum(output.entry.nbytes for output in outputs)


def write_shard(path: Path, outputs: list[Output], traffic: Traffic, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Write a safetensors file; it has its name once it is whole and on the disk."""
    head, places = header_of(outputs)
    with replace_descriptor(path) as fd:
        write_at(fd, head, 0, traffic)
        for output in outputs:
            _write_tensor(fd, output, places[output.name], traffic, chunk_bytes)


def copy_file(source: Path, path: Path, traffic: Traffic, chunk_bytes: int = CHUNK_BYTES) -> None:
    """Copy a file in pieces; it has its name once it is whole and on the disk."""
    with source.open("rb") as opened, replace_descriptor(path) as fd:
        at = 0
        while data := opened.read(chunk_bytes):
            traffic.read += len(data)
            write_at(fd, data, at, traffic)
            at += len(data)


def write_bytes(path: Path, data: bytes, traffic: Traffic) -> None:
    """Write a small file; it has its name once it is whole and on the disk."""
    with replace_descriptor(path) as fd:
        write_at(fd, data, 0, traffic)


def write_at(fd: int, data: bytes, at: int, traffic: Traffic) -> None:
    """All of ``data`` at a place of a file."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        traffic.wrote(count)
        view, at = view[count:], at + count


def _write_tensor(fd: int, output: Output, place: int, traffic: Traffic, chunk_bytes: int) -> None:
    if output.data is not None:
        write_at(fd, output.data, place, traffic)
    elif output.mean:
        _write_mean(fd, output, place, traffic, chunk_bytes)
    elif output.low_rank is not None:
        _write_sum(fd, output, output.low_rank, place, traffic, chunk_bytes)
    else:
        targets: dict[Region, list[int]] = {}
        for region in output.regions:
            targets.setdefault(region, []).append(place)
            place += region.stop - region.start
        for region, starts in targets.items():  # a region that is stacked E times is read once
            for at, data in _chunks(region, traffic, chunk_bytes):
                for start in starts:
                    write_at(fd, data, start + at, traffic)


def _write_mean(fd: int, output: Output, place: int, traffic: Traffic, chunk_bytes: int) -> None:
    import torch

    dtype = torch_dtype(output.entry.dtype)
    assert dtype is not None, output.entry.dtype  # the plan refuses others
    for pieces in zip(*(_chunks(region, traffic, chunk_bytes) for region in output.regions), strict=True):
        values = [torch.frombuffer(bytearray(data), dtype=dtype).double() for _, data in pieces]
        total = values[0]
        for value in values[1:]:
            total = total + value
        mean = (total / len(values)).to(dtype)
        write_at(fd, mean.view(torch.uint8).numpy().tobytes(), place + pieces[0][0], traffic)


def _write_sum(fd: int, output: Output, low_rank: LowRank, place: int, traffic: Traffic, chunk_bytes: int) -> None:
    """W + scale · B · A, some rows at a time; only A is in memory as a whole."""
    import torch

    (weight,) = output.regions
    dtype = torch_dtype(output.entry.dtype)
    assert dtype is not None, output.entry.dtype  # the plan refuses others
    rows, columns = output.entry.shape
    work = torch.promote_types(dtype, torch.float32)
    row_bytes = columns * ITEM_BYTES[output.entry.dtype]
    step = max(1, chunk_bytes // row_bytes)
    a = _rows(low_rank.a, 0, low_rank.a.shard.tensors[low_rank.a.name].shape[0], traffic).to(work)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        added = _rows(low_rank.b, first, last, traffic).to(work) @ a
        total = added.mul_(low_rank.scale).add_(_rows(weight, first, last, traffic).to(work)).to(dtype)
        write_at(fd, total.view(torch.uint8).numpy().tobytes(), place + first * row_bytes, traffic)


def _rows(region: Region, first: int, last: int, traffic: Traffic) -> torch.Tensor:
    """Rows ``[first, last)`` of a matrix."""
    import torch

    entry = region.shard.tensors[region.name]
    row_bytes = entry.shape[1] * ITEM_BYTES[entry.dtype]
    data = region.shard.read(region.name, first * row_bytes, last * row_bytes)
    traffic.read += len(data)
    dtype = torch_dtype(entry.dtype)
    assert dtype is not None, entry.dtype
    return torch.frombuffer(bytearray(data), dtype=dtype).view(last - first, entry.shape[1])


def _chunks(region: Region, traffic: Traffic, chunk_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of a region with their places in it; each holds whole elements."""
    step = max(8, chunk_bytes // 8 * 8)
    for at in range(region.start, region.stop, step):
        data = region.shard.read(region.name, at, min(at + step, region.stop))
        traffic.read += len(data)
        yield at - region.start, data
