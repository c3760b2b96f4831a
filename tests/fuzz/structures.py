"""Ways to tamper with JSON and YAML files: their structure, their text, and what lies under the file's name."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

_NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 3, 7, 255, 1000, 65_536, 1_000_000, 1_000_000_000, 2**31 - 1, 2**31, 2**63, -(2**63), 10**30),
    *(0.0, -0.0, 0.5, 1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")),
)
_TEXTS = (
    *(
        "",
        " ",
        "0",
        "1",
        "4",
        "nan",
        "null",
        "true",
        "é",
        "日本",
        "a" * 5000,
        "\0",
        "\x1b[2J\x1b[31m",
        "a\nb",
        "a\u2028b",
    ),
    *(
        "\ud800",
        "\u202egnp.exe",
        "/etc/passwd",
        "../../etc/passwd",
        "/dev/zero",
        "/nowhere/at/all",
        "~",
        "file:///etc",
        ".",
    ),
    *("http://127.0.0.1:9/x", "{{ 1 }}", "%s%n", "cuda:99", "float8", "gelu", "(a+)+$", "[", "*", "a.b.c"),
)


def strange(rng: random.Random) -> Any:
    """A value that few programs expect."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(_NUMBERS)
    if kind < 5:
        return rng.choice(_TEXTS)
    if kind == 5:
        return rng.choice((None, True, False, [], {}, [[]], {"": None}, [None]))
    if kind == 6:
        return nested(rng.choice((3, 60, 900)), rng.random() < 0.5)
    return rng.choice(([1] * 3000, {str(i): i for i in range(300)}, ["x"] * 40, {"a": {"b": [1, {"c": None}]}}))


def nested(depth: int, as_list: bool) -> Any:
    """Lists or mappings, one in the other."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside ``value``."""
    found, queue = [], [value]
    while queue:
        each = queue.pop()
        pairs = list(each.items() if isinstance(each, dict) else enumerate(each) if isinstance(each, list) else ())
        found += [(each, key) for key, _ in pairs]
        queue += [inner for _, inner in pairs]
    return found


def tamper_structure(value: Any, rng: random.Random) -> tuple[Any, list[str]]:
    """A copy of ``value`` with one to three changes, and what they are."""
    value, done = copy.deepcopy(value), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = places(value)
        if not found or rng.random() < 0.03:
            return strange(rng), [*done, "another value altogether"]
        container, key = rng.choice(found)
        change = rng.choice((_replace, _replace, _replace, _rescale, _wrap, _remove, _add, _exchange, _lengthen))
        done.append(f"{change(container, key, value, rng)} {str(key)[:40]!r}")
    return value, done


def _replace(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    container[key] = strange(rng)
    return "replaced"


def _rescale(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    old = container[key]
    if isinstance(old, bool) or not isinstance(old, int | float):
        return _replace(container, key, value, rng)
    factor = rng.choice((-1, 0, 2, 3, 10, 1000, 10**6, 10**12, 0.5, 1.0))
    container[key] = str(old) if factor == 0.5 else old * factor
    return "rescaled"


def _wrap(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    old = container[key]
    inside = next(iter(old.values() if isinstance(old, dict) else old), None) if isinstance(old, dict | list) else old
    container[key] = rng.choice(([old], {"value": old}, {str(key): old}, inside, str(old)))
    return "wrapped"


def _remove(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    del container[key]
    return "removed"


def _add(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    if isinstance(container, dict):
        container[rng.choice(("extra", "", "auto_map", "trust_remote_code", "a" * 300, str(key) + " "))] = strange(rng)
    else:
        container.insert(rng.randrange(len(container) + 1), strange(rng))
    return "added beside"


def _exchange(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    other, other_key = rng.choice(places(value))
    first, second = copy.deepcopy(container[key]), copy.deepcopy(other[other_key])
    container[key], other[other_key] = second, first
    return "exchanged"


def _lengthen(container: Any, key: Any, value: Any, rng: random.Random) -> str:
    old = container[key]
    if isinstance(old, list):
        container[key] = old * rng.choice((0, 2, 50)) or old[:-1]
        return "lengthened"
    return _replace(container, key, value, rng)


# -- texts ------------------------------------------------------------------------------------------------------------


def tamper_text(text: str, rng: random.Random) -> tuple[bytes, str]:
    """The bytes of a JSON or YAML text after a change that knows nothing of its structure."""
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    lines = bytes(data).splitlines(keepends=True)
    place, line = rng.randrange(len(data)), rng.randrange(len(lines))
    brackets = rng.choice((b"[", b'{"a":', b"- ", b"{a: ")) * rng.choice((500, 20_000))
    ways = {
        "bytes flipped": _flipped(data, rng),
        "cut short": bytes(data[:place]),
        "another text": rng.choice((b"", bytes(64), b"null", b"[]", b"{}", b"3", b'"', b"\xff\xfe{}", b"- " * 5000)),
        "another encoding": text.encode(rng.choice(("utf-16", "utf-8-sig", "utf-32")), "surrogatepass"),
        "unclosed brackets before": brackets + bytes(data),
        "a line repeated": b"".join([*lines[:line], lines[line], *lines[line:]]),
        "a line removed": b"".join([*lines[:line], *lines[line + 1 :]]),
    }
    done = rng.choice(list(ways))
    return ways[done], done


def _flipped(data: bytearray, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
    return bytes(changed)


_LAUGHS = "\n".join(
    ["z0: &z0 [a, a, a, a, a, a, a, a, a]", *(f"z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * 9)}]" for n in range(1, 9))]
)
"""Nine aliases of nine of nine …: 3.8e8 strings in 900 bytes."""

_YAML_ADDITIONS = (
    _LAUGHS,
    "recursive: &r [*r]",
    "recursive: &r {a: *r}",
    "<<: {max_frames: 3}",
    "tagged: !!python/object/apply:os.system ['true']",
    "tagged: !!binary abcd",
    "tagged: !!set {a, b}",
    "date: 2024-01-01",
    "? [1, 2]\n: 3",
    "---\nsecond: document",
    "number: 0x7fffffffffffffff",
    "sexagesimal: 190:20:30",
    "infinite: .inf",
)


def tamper_yaml(text: str, rng: random.Random) -> tuple[bytes, str]:
    """A YAML text with aliases, tags, repeated keys, and what else YAML allows."""
    lines = text.splitlines()
    way = rng.randrange(4)
    if way == 0:
        addition = rng.choice(_YAML_ADDITIONS)
        return f"{text.rstrip()}\n{addition}\n".encode(), f"{addition[:20]!r} added"
    keys = [n for n, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    if not keys:
        return tamper_text(text, rng)
    number = rng.choice(keys)
    key, _, rest = lines[number].partition(":")
    if way == 1:
        value = rng.choice(
            ("&a [*a]", "&a {b: *a}", "!!python/name:os.system", ".nan", "-.inf", "1e3", "0o17", "~", "[", "{a: b", "|")
        )
        lines[number] = f"{key}: {value}"
        return "\n".join(lines).encode(), f"{key.strip()} set to {value}"
    if way == 2:  # the whole file's mapping under one of its keys, by nested aliases
        inner = "\n".join(
            f"{key.replace(key.strip(), key.strip() + str(n))}: &x{n} [*x{n - 1}, *x{n - 1}]" for n in range(1, 30)
        )
        start = f"{key.replace(key.strip(), key.strip() + '0')}: &x0 [a, a]"
        lines[number : number + 1] = [start, *inner.splitlines(), f"{key}: *x29"]
        return "\n".join(lines).encode(), f"{key.strip()} set to nested aliases"
    lines.insert(number, f"{key}: {rng.choice(_NUMBERS)}" if rest.strip() else lines[number])
    return "\n".join(lines).encode(), f"{key.strip()} repeated"


# -- files ------------------------------------------------------------------------------------------------------------


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_link(target: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        path.symlink_to(target if target else path.name)

    return change


def _huge(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(900_000_000)


_FILE_CHANGES: dict[str, Callable[[Path], None]] = {
    "a pipe": _as_pipe,
    "a folder": _as_folder,
    "a link to itself": _as_link(""),
    "a link to nothing": _as_link("gone"),
    "a link to /dev/zero": _as_link("/dev/zero"),
    "missing": Path.unlink,
    "of 900 MB": _huge,
    "unreadable bytes": lambda path: path.write_bytes(bytes(range(256)) * 16),
}


def tamper_file(path: Path, rng: random.Random) -> str:
    """Tamper with the JSON or YAML file at ``path``; says what was done."""
    if rng.random() < 0.04:
        kind = rng.choice(list(_FILE_CHANGES))
        _FILE_CHANGES[kind](path)
        return f"{path.name}: {kind}"
    text = path.read_text(encoding="utf-8")
    is_yaml = path.suffix in (".yaml", ".yml")
    if rng.random() < (0.35 if is_yaml else 0.12):
        data, done = (tamper_yaml if is_yaml and rng.random() < 0.75 else tamper_text)(text, rng)
        path.write_bytes(data)
        return f"{path.name}: {done}"
    value = yaml.safe_load(text) if is_yaml else json.loads(text)
    value, changes = tamper_structure(value, rng)
    written = _yaml_text(value) if is_yaml else json.dumps(value, indent=1)
    path.write_bytes(written.encode("utf-8", "surrogatepass"))
    return f"{path.name}: {', '.join(changes)}"


def _yaml_text(value: Any) -> str:
    try:
        return yaml.dump(value, sort_keys=False)
    except RecursionError:  # what is nested deeper than PyYAML can write is valid JSON, and so YAML
        return json.dumps(value)
