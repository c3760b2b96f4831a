"""``tam data dedup``: exact duplicates and near-duplicates of queries removed, the first of each in file order kept.

Texts are compared without case, punctuation and extra space, question and options together; the order of the options
does not matter. Candidates come from MinHash and locality-sensitive hashing over character shingles, and one is
removed only if the true Jaccard similarity of its shingles with a kept query reaches the threshold. So hashing cannot
remove too much; it can miss a pair, at the threshold one in twenty (where ``num_perm`` allows it), above it far fewer.

The file is streamed. In memory are, for each kept query, its text, id and hash buckets (about 4 KiB with 64 hash
functions), and for each removed one its line of the report. A low threshold has far more candidates to
compare: at 0.5 expect many times the time of 0.8.
"""

from __future__ import annotations

import json
import os
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tam_plugin.errors import InputError, require
from tam_plugin.inductor.data.records import Record, read_records
from tam_plugin.storage import replace_file

SHINGLE = 4
"""Characters a shingle. Of 3 to 5 characters and 1 to 3 words it told reworded queries from different ones best."""
MISSED = 0.05
"""Share of the pairs exactly at the threshold that hashing may miss."""
MIN_PERM, MAX_PERM = 16, 1024


class Pair(NamedTuple):
    """Two queries that are near-duplicates: the kept one, the later one, their similarity and labels (or None)."""

    kept: str
    id: str
    similarity: float
    labels: tuple[int | None, int | None]


@dataclass
class DedupReport:
    """What :func:`dedup` did: counts, the removed queries, and near-duplicates kept because their labels differ."""

    read: int = 0
    kept: int = 0
    exact: int = 0
    near: int = 0
    threshold: float = 0.8
    removed: list[Pair] = field(default_factory=list)
    conflicts: list[Pair] = field(default_factory=list)

    def summary(self) -> str:
        """One line."""
        return (
            f"{self.read} queries read, {self.kept} kept; removed: {self.exact} exact duplicates, {self.near} "
            f"near-duplicates (Jaccard >= {self.threshold:g}); {len(self.conflicts)} pairs alike kept as their "
            "labels differ"
        )

    def to_json(self) -> str:
        """Counts, ``removed`` and ``conflicts`` (``kept``, ``id``, ``similarity``, ``labels``) as JSON."""
        pairs = {name: [pair._asdict() for pair in getattr(self, name)] for name in ("removed", "conflicts")}
        return json.dumps(asdict(self) | pairs, indent=1) + "\n"


def dedup(
    source: str | Path,
    out: str | Path,
    *,
    threshold: float = 0.8,
    num_perm: int = 64,
    keep_labels_apart: bool = True,
    report: str | Path | None = None,
) -> DedupReport:
    """Write the queries of ``source`` without duplicates to ``out``, each line as it stood.

    Args:
        source: records, one a line.
        out: another file; it takes its place when all is done.
        threshold: Jaccard similarity, in (0, 1], from which two queries are near-duplicates.
        num_perm: hash functions of MinHash, 16-1024; more miss fewer pairs and take longer.
        keep_labels_apart: keep a query whose label none of the kept queries like it has. A query without a label is
            removed in favour of a labelled one, not the reverse.
        report: where the report goes as JSON; by default ``out`` with ``.report.json`` after it.

    Raises:
        InputError: a value out of range, a malformed line, an id that comes twice, or files that are not different.
        MissingDependencyError: datasketch is not installed.
    """
    from tqdm import tqdm

    index = NearDuplicates(threshold, num_perm)
    report = f"{out}.report.json" if report is None else report
    names = [os.path.realpath(path) for path in (source, out, report)]
    if len(set(names)) < len(names):
        raise InputError(f"input {str(source)!r}, output {str(out)!r} and report {str(report)!r} must be three files")
    done = DedupReport(threshold=threshold)
    kept: list[tuple[str, int | None]] = []
    with replace_file(report) as report_file, replace_file(out) as file:
        for record, _, line in tqdm(read_records(source), disable=None, unit=" queries", desc="dedup"):
            done.read += 1
            label = record.label if keep_labels_apart else None
            text = comparison_text(record)
            alike = [
                (Pair(kept[place][0], record.id, round(similarity, 4), (kept[place][1], record.label)), text_is_same)
                for place, similarity, text_is_same in index.find(text)
            ]
            same = next((found for found in alike if label is None or found[0].labels[0] == label), None)
            if same:
                done.removed.append(same[0])
                done.exact += same[1]
                done.near += not same[1]
                continue
            done.conflicts += [found for found, _ in alike if found.labels[0] is not None]
            index.add(text)
            kept.append((record.id, record.label))
            file.write(line + "\n")
        done.kept = len(kept)
        report_file.write(done.to_json())
    return done


class NearDuplicates:
    """Texts by their place, and which of them a new text is like.

    Args:
        threshold: true Jaccard similarity from which texts are alike.
        num_perm: hash functions of MinHash.

    Raises:
        InputError: a value out of range.
        MissingDependencyError: datasketch is not installed.
    """

    def __init__(self, threshold: float, num_perm: int) -> None:
        if not 0 < threshold <= 1:
            raise InputError(f"threshold = {threshold!r}: expected a Jaccard similarity in (0, 1]")
        if not MIN_PERM <= num_perm <= MAX_PERM:
            raise InputError(f"num_perm = {num_perm!r}: expected {MIN_PERM}-{MAX_PERM}")
        sketch = require("datasketch", needed_for="finding near-duplicates", extra="data")
        self.threshold = threshold
        self._texts: list[str] = []
        self._places: dict[str, list[int]] = {}
        self._lsh = sketch.MinHashLSH(num_perm=num_perm, params=bands(threshold, num_perm))
        self._empty = sketch.MinHash(num_perm=num_perm, hashfunc=zlib.crc32)
        self._shingles = lru_cache(maxsize=4096)(shingles)
        self._sketch = lru_cache(maxsize=1)(self._hash)

    def find(self, text: str) -> Iterator[tuple[int, float, bool]]:
        """Place, similarity and whether the text is the same, for each text that is alike: same ones first."""
        same = self._places.get(text, [])
        yield from ((place, 1.0, True) for place in same)
        own = self._shingles(text)
        for place in sorted(self._lsh.query(self._sketch(text))):
            if place in same:
                continue
            other = self._shingles(self._texts[place])
            common = len(own & other)
            similarity = common / (len(own) + len(other) - common)
            if similarity >= self.threshold:
                yield place, similarity, False

    def add(self, text: str) -> None:
        """Give the text the next place."""
        place = len(self._texts)
        self._lsh.insert(place, self._sketch(text), check_duplication=False)
        self._texts.append(text)
        self._places.setdefault(text, []).append(place)

    def _hash(self, text: str) -> Any:
        sketch = self._empty.copy()
        sketch.update_batch([piece.encode() for piece in self._shingles(text)])
        return sketch


def bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Bands and rows a band of the hash index: the longest rows with which at most :data:`MISSED` is missed.

    A pair of similarity s shares a band of r rows with probability s^r, and none of b bands with (1 - s^r)^b.
    """
    fitting = [rows for rows in range(1, num_perm // 2 + 1) if (1 - threshold**rows) ** (num_perm // rows) <= MISSED]
    rows = max(fitting, default=1)
    return num_perm // rows, rows


def comparison_text(record: Record) -> str:
    """Question and options as they are compared: a line each, the options in order of their letters."""
    return "\n".join((normalise(record.question), *sorted(normalise(option) for option in record.options or ())))


def normalise(text: str) -> str:
    """A text without case, punctuation and extra space; signs such as + and $ stay.

    A text of nothing but punctuation is kept as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_BLANKS).split()) or " ".join(folded.split())


class _Blanks(dict[int, int]):
    """Characters of punctuation, separation and control → a space; found once a character."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


_BLANKS = _Blanks()


def shingles(text: str) -> frozenset[str]:
    """Every run of :data:`SHINGLE` characters within a line, with a space before and after the line."""
    pieces: set[str] = set()
    for line in text.split("\n"):
        padded = f" {line} "
        pieces.update(padded[i : i + SHINGLE] for i in range(max(1, len(padded) - SHINGLE + 1)))
    return frozenset(pieces)
