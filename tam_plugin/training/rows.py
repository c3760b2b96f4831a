"""Rows of a training set, as plans are made for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tam_plugin.errors import InputError, check_unicode
from tam_plugin.inductor.data.formats import Malformed, read_rows
from tam_plugin.inductor.data.records import check_file, is_number
from tam_plugin.inductor.data.sources import expand
from tam_plugin.taxonomy import check_duration_s
from tam_plugin.training.keys import SampleKey, first_question, is_video_row, sample_key, video_of

SUFFIXES = (".json", ".jsonl")
_DURATIONS = ("duration_s", "duration")


class Row(NamedTuple):
    """A row as it stands in a file, and ``FILE:NUMBER``."""

    where: str
    content: Any


class Sample(NamedTuple):
    """A row about a video; ``row`` is its place in the whole data, ``duration_s`` what the row says, if it does."""

    row: int
    key: SampleKey
    video: str
    question: str
    duration_s: float | None
    where: str


def data_files(data: str) -> list[str]:
    """The files that ``--data`` stands for, each once.

    A YAML list's ``sampling_strategy`` is checked, and every row of the file is planned whatever it says: the host
    draws ``random:N`` anew in each process that trains, and any draw then finds its plans.

    Raises:
        InputError: a file is missing or of a kind that the host does not read, or the list is malformed.
    """
    files = list(dict.fromkeys(source.path for source in expand(data)))
    for path in files:
        check_file(path)
        if Path(path).suffix.lower() not in SUFFIXES:
            raise InputError(f"{path!r}: expected instruction data in {' or '.join(SUFFIXES)}, or a YAML list of such")
    return files


def raw_rows(files: Sequence[str]) -> Iterator[Row]:
    """The rows of the files one after another.

    Raises:
        InputError: a file cannot be read or is empty.
    """
    for path in files:
        number = None
        for number, content in read_rows(path):
            yield Row(f"{path}:{number}", content)
        if number is None:
            raise InputError(f"{path!r} is empty; expected rows with 'conversations'")


def samples(rows: Iterable[tuple[int, Row]]) -> Iterator[Sample]:
    """Those of the numbered rows that are about a video.

    Raises:
        InputError: a row cannot be used; the message begins with its file and number.
    """
    for place, row in rows:
        try:
            if isinstance(row.content, Malformed):
                raise InputError(row.content.reason)
            if is_video_row(row.content):
                yield _sample(place, row.content, row.where)
        except InputError as error:
            raise InputError(f"{row.where}: {error}") from error


def _sample(place: int, content: Mapping[str, Any], where: str) -> Sample:
    video, question = video_of(content), first_question(content)
    check_unicode(question)
    key = sample_key(content.get("id"), video, question)
    return Sample(place, key, video, question, _duration_s(content), where)


def _duration_s(row: Mapping[str, Any]) -> float | None:
    for name in _DURATIONS:
        value = row.get(name)
        if value is None:
            continue
        try:
            if not is_number(value):
                raise InputError("not a number")
            check_duration_s(value)
        except InputError:
            raise InputError(f"{name!r} must be seconds > 0 or null, got {str(value)[:40]!r}") from None
        return float(value)
    return None
