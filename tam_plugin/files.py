"""Reading files that others wrote: configuration in JSON and YAML, looked at before anything of their size is made.

A file is opened only if it is a regular one (a pipe would never end, a device might), read up to a stated size, parsed
into plain values of bounded depth, or refused in one line that names it. YAML has no aliases here: through them a
kilobyte stands for more values than any memory holds.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from tam_plugin.errors import ConfigError, InputError, TamError

MAX_JSON_BYTES = 64 << 20
"""An index of a thousand shards has 10 MB, a vocabulary in JSON 5."""
MAX_YAML_BYTES = 1_000_000
"""No configuration in YAML is near this size."""
MAX_DEPTH = 32
"""Mappings and lists inside one another; the deepest configuration known has 8."""

_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"
_NO_ALIASES = "anchors, aliases and merge keys are not taken here; write the values out"
_LONGEST_INTEGER = 20
_HALF_CHARACTER = re.compile("[\\ud800-\\udfff]")


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A regular file, open for reading; never waits for one that is something else.

    Raises:
        OSError: there is none, it cannot be read, or it is a folder, a pipe, a socket or a device.
    """
    name = os.fspath(path)
    try:
        # Without O_NONBLOCK opening a pipe waits for a writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a NUL character, or one that no file system holds
        raise OSError(f"no file has such a name ({error})") from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is not a regular file")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """The whole of a regular file.

    Raises:
        OSError: as :func:`opened`, or it is larger than ``max_bytes``.
    """
    with opened(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(f"it is larger than {max_bytes:,} bytes")
    return content


def read_json(
    path: str | os.PathLike[str],
    *,
    what: str = "",
    max_bytes: int = MAX_JSON_BYTES,
    strict: bool = True,
    error: type[TamError] = InputError,
) -> dict[str, Any]:
    """A JSON object from a file: bounded in size and depth, and unless told otherwise strict.

    Args:
        path: the file.
        what: what it is, for messages.
        max_bytes: its size, at most.
        strict: see :func:`parse_json`; False for records of runs, which may hold NaN and any file name.
        error: the kind of error to raise.

    Raises:
        FileNotFoundError: there is no such file; what that means, the caller knows.
        TamError: of the kind ``error``: it cannot be read, or holds something else.
    """
    where = f"{what} {str(path)!r}".strip()
    try:
        values = parse_json(read_bytes(path, max_bytes=max_bytes), strict=strict)
    except (FileNotFoundError, NotADirectoryError) as reason:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from reason
    except (OSError, ValueError) as reason:
        raise error(f"{where} cannot be read as JSON: {_reason(reason)}") from reason
    if not isinstance(values, dict):
        raise error(f"{where} must hold a JSON object, found {type(values).__name__}")
    return values


def parse_json(text: bytes | str, *, strict: bool = True) -> Any:
    """Plain values from JSON text that others wrote.

    Args:
        text: in UTF-8.
        strict: refuse a key that stands twice, numbers that no float holds, and halves of characters; otherwise an
            absurdly long whole number does not cost the rest: it becomes a float.

    Raises:
        ValueError: it is no JSON, nested deeper than :data:`MAX_DEPTH`, or not strict.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        values = json.loads(
            text, object_pairs_hook=_unique if strict else None, parse_int=None if strict else whole_number
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_tree(values, strict=strict)
    return values


def whole_number(digits: str) -> int | float:
    """The whole number of some digits, or, where they are absurdly many, a float."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def read_yaml(path: str | os.PathLike[str], *, what: str, error: type[TamError] = ConfigError) -> Any:
    """Plain values from a YAML file: bounded in size and depth, no aliases, no key twice.

    Args:
        path: the file.
        what: what it is, for messages.
        error: the kind of error to raise.

    Raises:
        TamError: of the kind ``error``, with the file and, where it can be told, the line.
    """
    where = f"{what} file {str(path)!r}"
    try:
        text = read_bytes(path, max_bytes=MAX_YAML_BYTES).decode("utf-8-sig")
    except FileNotFoundError as reason:
        raise error(f"{where} cannot be read: there is no such file") from reason
    except (OSError, ValueError) as reason:
        raise error(f"{where} cannot be read: {_reason(reason)}") from reason
    try:
        return parse_yaml(text)
    except ValueError as reason:
        raise error(f"{where} is not valid YAML: {reason}") from reason


def parse_yaml(text: str) -> Any:
    """Plain values from YAML text that others wrote.

    Raises:
        ValueError: it is no YAML, or has aliases, a key twice, too many levels, or values that JSON does not have; the
            message names the line where it can.
    """
    try:
        values = _PlainLoader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ValueError(f"{place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace(' in "<unicode string>"', "")) from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_tree(values, strict=True)
    return values


class _PlainLoader(yaml.SafeLoader):
    """``SafeLoader`` for a tree of values: no aliases, no merge keys, no tags, no key twice."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """A node, unless it is an alias or lies too deep."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise yaml.composer.ComposerError(None, None, f"{sign}{event.anchor}: {_NO_ALIASES}", event.start_mark)
        if getattr(event, "tag", None) is not None:
            problem = f"the tag {event.tag}: tags are not taken here; write a plain value"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping, unless it names a key twice."""
        if isinstance(node, yaml.MappingNode):
            seen: set[tuple[str, str]] = set()
            for key, _ in node.value:
                name = (key.tag, str(key.value))
                if key.tag == "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(None, None, f"<<: {_NO_ALIASES}", key.start_mark)
                if name in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {str(key.value)[:60]!r} stands twice", key.start_mark
                    )
                seen.add(name)
        return super().construct_mapping(node, deep=deep)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return values


def _check_tree(values: Any, *, strict: bool) -> None:
    """Refuse nesting that later steps would have to follow by recursion, and values that they do not expect."""
    level = [values]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.values()
                below += value.keys()
            elif isinstance(value, list):
                below += value
            elif strict:
                _check_plain(value)
        if not below:
            return
        level = below
    raise ValueError(_TOO_DEEP)


def _check_plain(value: Any) -> None:
    if isinstance(value, str):
        if _HALF_CHARACTER.search(value):
            raise ValueError(f"the text {value[:60]!r} contains a lone surrogate (half a character)")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"it holds {value}: expected finite numbers")
    elif isinstance(value, int):
        if abs(value) >= 1 << 128:  # tokenizers write 10**30 for "no limit"
            raise ValueError(f"it holds a whole number of {value.bit_length()} bits: expected at most 128")
    elif value is not None:
        raise ValueError(f"it holds a {type(value).__name__}: expected plain values; put dates and the like in quotes")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:300]


def inside(folder: str | os.PathLike[str], name: str) -> Path | None:
    """The file or folder that a relative ``name`` means inside ``folder``; None if it leaves it, by links too."""
    if not name or os.path.isabs(name) or name.startswith("~"):
        return None
    try:
        root, place = Path(os.path.realpath(folder)), Path(os.path.realpath(Path(folder) / name))
    except (OSError, ValueError):
        return None
    return place if root in place.parents else None
