"""What a SRC of ``tam data collect`` stands for: files, brace patterns, and the host's YAML lists.

``part_{1,2}.json`` names ``part_1.json`` and ``part_2.json``. A YAML list holds, under ``datasets``, entries with a
``json_path`` (relative to the working directory, as the host reads it) and a ``sampling_strategy``: ``all``,
``first:N``, ``end:N`` or ``random:N``, where N is a count of rows or a percentage such as ``10%``, rounded up. As in
every YAML file that is read here, anchors, aliases and merge keys are refused: each entry is written out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.files import read_yaml
from tam_plugin.inductor.data.formats import Rows, read_rows
from tam_plugin.inductor.data.records import check_file

_STRATEGY = re.compile(r"(first|end|random):(\d+)(%?)")
_BRACES = re.compile(r"([^{}]*)\{([^{}]+)\}([^{}]*)")


@dataclass(frozen=True)
class Source:
    """One file and which of its rows are wanted."""

    path: str
    strategy: str = "all"


def expand(src: str) -> list[Source]:
    """The files of one SRC, in order.

    Raises:
        InputError: a brace pattern or a YAML list that is malformed; the message names the entry.
    """
    if Path(src).suffix.lower() in (".yaml", ".yml"):
        return _read_list(src)
    return [Source(path) for path in _braces(src, src)]


def _braces(pattern: str, where: str) -> list[str]:
    if Path(pattern).exists() or not set("{}") & set(pattern):
        return [pattern]
    match = _BRACES.fullmatch(pattern)
    if not match:
        raise InputError(f"{where}: the pattern {pattern!r} must have one pair of braces, as in part_{{1,2}}.json")
    start, names, end = match.groups()
    return [f"{start}{name.strip()}{end}" for name in names.split(",")]


def _read_list(path: str) -> list[Source]:
    check_file(path)
    content = read_yaml(path, what="the list", error=InputError)
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{path!r} must hold a list 'datasets' of entries with json_path")
    return [
        source for number, entry in enumerate(entries, 1) for source in _read_entry(entry, f"{path}, entry {number}")
    ]


def _read_entry(entry: Any, where: str) -> list[Source]:
    name = entry.get("json_path") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        raise InputError(f"{where}: expected a json_path with the name of a file, got {str(entry)[:80]!r}")
    strategy = entry.get("sampling_strategy") or "all"
    if not isinstance(strategy, str) or not _is_strategy(strategy):
        raise InputError(
            f"{where}: sampling_strategy {strategy!r}: expected all, first:N, end:N or random:N with N > 0 or 1%-100%"
        )
    return [Source(path, strategy) for path in _braces(name, where)]


def _is_strategy(strategy: str) -> bool:
    match = _STRATEGY.fullmatch(strategy)
    return strategy == "all" or bool(
        match and int(match.group(2)) > 0 and (not match.group(3) or int(match.group(2)) <= 100)
    )


def sampled_rows(source: Source, *, seed: int = 0) -> Iterator[Any]:
    """The wanted rows of a file in file order; the file is read twice when only some are wanted.

    Args:
        source: file and strategy. As in the host, N beyond the end of the file takes every row.
        seed: of ``random:N``; the same seed takes the same rows.

    Raises:
        InputError: as :func:`read_rows`.
    """
    match = _STRATEGY.fullmatch(source.strategy)
    if not match:
        yield from read_rows(source.path)
        return
    total = sum(1 for _ in read_rows(source.path))
    kind, count, percent = match.group(1), int(match.group(2)), match.group(3)
    wanted = min(total, -(-count * total // 100) if percent else count)
    yield from _pick(read_rows(source.path), kind, wanted, total, random.Random(seed))


def _pick(rows: Rows, kind: str, wanted: int, total: int, rng: random.Random) -> Iterator[Any]:
    start = 0 if kind == "first" else total - wanted
    chosen = set(rng.sample(range(total), wanted)) if kind == "random" else range(start, start + wanted)
    for place, row in enumerate(rows):
        if place in chosen:
            yield row
