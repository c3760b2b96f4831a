"""Plans on disk: a table of samples sorted by key, memory-mapped so that every worker shares one copy, and a header.

``plans.safetensors`` holds for each sample ``key`` (uint64, ascending), ``frames``, ``stride``, ``task`` (1-8 in paper
order), ``confidence``, ``duration`` (seconds; NaN where it is not known) and ``flags``; and for each sample whose video
has yet to tell its length, ``deferred_key`` and the Inductor's answer for a short, a medium and a long video,
``deferred_probabilities`` (float32 ``[U, 3, 8]``), so that training needs no Inductor to plan it again. Where the
Inductor knows task types beyond the eight there is ``extension`` (0, or a place from 1 in the header's list) beside
both. ``bad_key`` holds the keys of samples that cannot be planned, where there are any. ``plans.json`` says what the
plans were made from and their counts.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.files import read_json
from tam_plugin.headers import read_header as read_table_header
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskDistribution, TaskExtension, TaskType, length_class

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
TABLE_FILE = "plans.safetensors"
HEADER_FILE = "plans.json"

UNKNOWN, PROBED, GIVEN, UNREADABLE, FALLBACK = 1, 2, 4, 8, 16
"""Flags: the duration is not known; it is the video's; it is the row's; the video could not be opened; the policy had
a reason not to follow its plain rule."""

LENGTH_CLASSES = ("short", "medium", "long")

PLAN = np.dtype(
    [
        ("key", "<u8"),
        ("check", "<u8"),
        ("row", "<u8"),
        ("duration", "<f4"),
        ("frames", "<u2"),
        ("confidence", "<f2"),
        ("stride", "u1"),
        ("task", "u1"),
        ("extension", "u1"),
        ("flags", "u1"),
    ]
)
"""One sample while plans are made; ``check`` and ``row`` (its place in the data) are not kept."""
DEFERRED = np.dtype(
    [
        ("key", "<u8"),
        ("probabilities", "<f4", (3, 8)),
        ("extension_probability", "<f4", (3,)),
        ("extension", "u1", (3,)),
    ]
)
"""What the Inductor says of a sample whose duration is not known, for each length class."""

_TYPES = {"U64": "<u8", "U16": "<u2", "U8": "u1", "F32": "<f4", "F16": "<f2"}


class Planned(NamedTuple):
    """One sample's plan; ``extension`` is the task type beyond the eight that decided, if one did."""

    num_frames: int
    stride: int
    task: TaskType
    confidence: float
    duration_s: float | None
    flags: int
    extension: TaskExtension | None


def table_bytes(
    plans: NDArray[Any], deferred: NDArray[Any], bad_keys: NDArray[np.uint64], *, with_extensions: bool
) -> bytes:
    """The table file of :data:`PLAN` and :data:`DEFERRED` rows and the keys of bad rows, all sorted by key."""
    from safetensors.numpy import save

    wide = len(plans) and int(plans["frames"].max()) > np.iinfo(np.uint8).max
    columns = {name: plans[name] for name in ("key", "stride", "task", "confidence", "duration", "flags")}
    columns["frames"] = plans["frames"] if wide else plans["frames"].astype(np.uint8)
    columns |= {f"deferred_{name}": deferred[name] for name in ("key", "probabilities")}
    if with_extensions:
        columns["extension"] = plans["extension"]
        columns |= {f"deferred_{name}": deferred[name] for name in ("extension", "extension_probability")}
    if len(bad_keys):
        columns["bad_key"] = bad_keys
    return save({name: np.ascontiguousarray(column) for name, column in columns.items()})


class Plans:
    """Plans of a folder, opened for looking up; copies sent to other processes map the same file.

    Args:
        folder: what ``tam plan-data --out`` wrote.

    Raises:
        InputError: there are no plans, they are not finished, or they are damaged.

    Attributes:
        header: the content of ``plans.json``.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = str(folder)
        self.header = read_header(folder)
        columns = _mapped(Path(folder) / TABLE_FILE, self.header.get("table_bytes"))
        self._deferred = {n.removeprefix("deferred_"): c for n, c in columns.items() if n.startswith("deferred_")}
        self._bad_keys = columns.pop("bad_key", np.empty(0, np.uint64))
        self._columns = {n: c for n, c in columns.items() if not n.startswith("deferred_")}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.folder,)

    def __len__(self) -> int:
        return len(self._columns["key"])

    def column(self, name: str) -> NDArray[Any]:
        """A column of the table, one entry per sample, mapped from the file."""
        return self._columns[name]

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each key ``[N]`` in the table, -1 where it is not there."""
        return _find(self._columns["key"], keys)

    def is_bad(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Whether each key ``[N]`` is that of a sample that ``tam plan-data`` found to be unusable, so has no plan."""
        return _find(self._bad_keys, keys) >= 0

    def planned(self, key: int) -> Planned | None:
        """The plan of a sample, or None if there is none."""
        at = int(self.find(np.array([key], np.uint64))[0])
        if at < 0:
            return None
        row = {name: column[at] for name, column in self._columns.items()}
        place = int(row.get("extension", 0))
        return Planned(
            num_frames=int(row["frames"]),
            stride=int(row["stride"]),
            task=TaskType(int(row["task"])),
            confidence=float(row["confidence"]),
            duration_s=None if np.isnan(row["duration"]) else float(row["duration"]),
            flags=int(row["flags"]),
            extension=self.extensions[place - 1] if place else None,
        )

    def distribution(self, key: int, duration_s: float) -> TaskDistribution:
        """What the Inductor says of a sample that is marked :data:`UNKNOWN`, now that its duration is known.

        Raises:
            InputError: the sample is not marked so.
        """
        at = int(_find(self._deferred["key"], np.array([key], np.uint64))[0])
        if at < 0:
            raise InputError(f"{self.folder!r}: sample {key:#018x} was planned with its duration")
        kind = LENGTH_CLASSES.index(length_class(duration_s))
        probabilities = tuple(self._deferred["probabilities"][at, kind].tolist())
        place = int(self._deferred["extension"][at, kind]) if "extension" in self._deferred else 0
        if not place:
            return TaskDistribution(probabilities)
        probability = float(self._deferred["extension_probability"][at, kind])
        return TaskDistribution(probabilities, self.extensions[place - 1], probability)

    @cached_property
    def extensions(self) -> list[TaskExtension]:
        """The Inductor's task types beyond the eight, as the header describes them.

        Raises:
            InputError: the header describes one in another way.
        """
        found = []
        for place, values in enumerate(self.header.get("extensions", ())):
            try:  # plans that were made before extensions had an index number them by their place
                found.append(TaskExtension(**{"index": NUM_TASK_TYPES + 1 + place, **values}))
            except TypeError as error:
                raise InputError(f"{self.folder!r}: {HEADER_FILE} holds the extension {values!r}: {error}") from error
        return found


def read_header(folder: str | Path) -> dict[str, Any]:
    """The header of finished plans.

    Raises:
        InputError: there is none, or it is of another version.
    """
    path = Path(folder) / HEADER_FILE
    try:
        header = read_json(path, what="the plans", strict=False)
    except FileNotFoundError:
        raise InputError(
            f"no plans in {str(folder)!r}: expected a folder that 'tam plan-data --out' has finished"
        ) from None
    version = header.get("format")
    if version != FORMAT:
        raise InputError(f"{str(path)!r}: format {version!r}, expected {FORMAT}; make the plans again")
    return header


def _find(sorted_keys: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    if not len(sorted_keys):
        return np.full(len(keys), -1, np.int64)
    places = np.searchsorted(sorted_keys, keys).clip(max=len(sorted_keys) - 1)
    return np.where(sorted_keys[places] == keys, places, -1)


def _mapped(path: Path, size: int | None) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file as views of one memory map (the library's own NumPy reader copies them)."""
    try:
        if path.stat().st_size != size:
            raise InputError(
                f"{str(path)!r} has {path.stat().st_size} bytes, but its header says {size}; make it again"
            )
        header = read_table_header(path)
        content = np.memmap(path, np.uint8, "r", offset=header.data_start)
        columns = {}
        for name, entry in header.entries.items():
            start, end = entry["data_offsets"]
            columns[name] = content[start:end].view(np.ndarray).view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the plans' table {str(path)!r} cannot be read: {str(error)[:160]}") from error
    return columns
