"""Rows of a training set that cannot be used: how many training tolerates, and the list of rows to leave out.

``tam plan-data`` finds them before training and lists them in ``bad_rows.jsonl``; training counts those that it meets.
Both stop by the same rule, :func:`too_many`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tam_plugin.errors import ConfigError, InputError

FILE_NAME = "bad_rows.jsonl"
FORMAT = 1
DEFAULT_MAX_SHARE = 0.001
MIN_ALLOWED = 5
"""Bad rows that any share above 0 allows, so that a small set does not stop at its first one."""

UNREADABLE, MALFORMED, NOT_JSON = "unreadable", "malformed", "not JSON"
"""Kinds: the video cannot be read; training cannot use the row; the host's loader fails at the row."""


class BadRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
        row: its place in the whole data, from 0.
        where: ``FILE:NUMBER``.
        name: its video as it is written there, or its id.
        reason: one line.
        kind: :data:`UNREADABLE`, :data:`MALFORMED` or :data:`NOT_JSON`.
        sample: :func:`row_digest`, which training finds it by; empty where the row is not JSON.
        key: the key that plans would know it by, if it has no plan.
    """

    row: int
    where: str
    name: str
    reason: str
    kind: str
    sample: str
    key: int | None = None


def check_max_share(share: float, option: str) -> None:
    """Refuse an invalid share of bad rows.

    Raises:
        ConfigError: with the option's name.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"{option} {share}: expected a share from 0 to 1, such as {DEFAULT_MAX_SHARE}")


def allowed(total: int, max_share: float) -> int:
    """Bad rows allowed among ``total``: the share, and at least :data:`MIN_ALLOWED`; none for a share of 0."""
    return max(MIN_ALLOWED, int(max_share * total)) if max_share else 0


def too_many(bad: int, total: int, max_share: float) -> bool:
    """Whether training stops at this many bad rows: more than :func:`allowed`, or all of them."""
    return bad > allowed(total, max_share) or bad == total > 0


def describe_rule(max_share: float) -> str:
    """What is allowed, for a message that has named the option."""
    return f"allows a share of {max_share:g}" + (f", and at least {MIN_ALLOWED}" if max_share else "")


def row_digest(row: Any) -> str:
    """What names a row's whole content, however it is written, in hexadecimal."""
    content = json.dumps(row, sort_keys=True)
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def lines_of(header: Mapping[str, Any], rows: Iterable[BadRow]) -> Iterable[str]:
    """The lines of the list: what it was made from, then a row on each."""
    yield json.dumps({"format": FORMAT, **header}) + "\n"
    for row in rows:
        values = row._asdict()
        del values["key"]
        yield json.dumps(values) + "\n"


class SkipList(NamedTuple):
    """A list of rows to leave out.

    Attributes:
        path: where it is.
        header: what it was made from; ``data`` are the files.
        samples: :func:`row_digest` of each row.
    """

    path: str
    header: dict[str, Any]
    samples: frozenset[str]


def read_skip_header(path: str) -> dict[str, Any]:
    """The first line of a list.

    Raises:
        InputError: the file cannot be read, or ``tam plan-data`` did not write it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            header = json.loads(file.readline(1 << 24))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"its first line is not JSON ({error})"
        raise InputError(
            f"{path!r} cannot be read: {reason}; expected the {FILE_NAME} that 'tam plan-data' wrote"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(header.get("data"), list):
        raise InputError(f"{path!r} is not a list of bad rows: expected the {FILE_NAME} that 'tam plan-data' wrote")
    return header


def listed_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """The rows of a list, with the fields of :class:`BadRow` but for the key.

    Raises:
        InputError: as :func:`read_skip_header`; or a line is damaged, with its number.
    """
    read_skip_header(str(path))
    number = 1
    try:
        with open(path, encoding="utf-8") as file:
            file.readline()
            for line in file:
                number += 1
                values = json.loads(line)
                values["sample"]
                yield values
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}:{number}: damaged ({str(error)[:100]}); run 'tam plan-data' again") from error


def read_skip_list(path: str) -> SkipList:
    """A whole list.

    Raises:
        InputError: as :func:`listed_rows`.
    """
    samples = {str(values["sample"]) for values in listed_rows(path)}
    return SkipList(path, read_skip_header(path), frozenset(samples - {""}))  # a row that is not JSON has none
