"""Rows of a training set, as plans are made for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tam_plugin.errors import InputError, check_unicode
from tam_plugin.inductor.data.formats import Malformed, read_rows
from tam_plugin.inductor.data.records import check_file, is_number
from tam_plugin.inductor.data.sources import expand
from tam_plugin.inductor.text import prepare_query
from tam_plugin.plans.bad_rows import MALFORMED, NOT_JSON, BadRow, row_digest
from tam_plugin.plans.keys import SampleKey, first_question, is_video_row, key_of_row, sample_key, video_of
from tam_plugin.taxonomy import check_duration_s

SUFFIXES = (".json", ".jsonl")
_DURATIONS = ("duration_s", "duration")


class Row(NamedTuple):
    """A row as it stands in a file, and ``FILE:NUMBER``."""

    where: str
    content: Any


class Sample(NamedTuple):
    """A row about a video.

    Attributes:
        row: its place in the whole data, from 0.
        key: what plans know it by.
        video: the video's path as it is written there.
        question: the first human turn.
        duration_s: what the row says, if it does.
        where: ``FILE:NUMBER``.
        content: the row.
        bad_duration: whether the row's duration is not a valid one, so that it is ignored, as in training.
    """

    row: int
    key: SampleKey
    video: str
    question: str
    duration_s: float | None
    where: str
    content: Mapping[str, Any]
    bad_duration: bool = False


def data_files(data: str) -> list[str]:
    """The files that ``--data`` stands for, each once.

    A YAML list's ``sampling_strategy`` is checked, and every row of the file is planned whatever it says: the host
    draws ``random:N`` again in each process that trains, and any draw then finds its plans.

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


def numbered_chunks(files: Sequence[str], size: int) -> Iterator[tuple[int, list[tuple[int, Row]]]]:
    """Number and rows of each chunk of ``size`` rows, each row with its place in the whole data."""
    rows = enumerate(raw_rows(files))
    for number in itertools.count():
        chunk = list(itertools.islice(rows, size))
        if not chunk:
            return
        yield number, chunk


def samples(rows: Iterable[tuple[int, Row]]) -> tuple[list[Sample], list[BadRow]]:
    """Those of the numbered rows that are about a video, and those that training could not use."""
    found: list[Sample] = []
    bad: list[BadRow] = []
    for place, row in rows:
        try:
            if isinstance(row.content, Malformed):
                raise InputError(row.content.reason)
            if is_video_row(row.content):
                found.append(_sample(place, row.content, row.where))
            elif not isinstance(row.content.get("conversations"), list):
                raise InputError("no 'conversations': expected a list of turns")
        except InputError as error:
            bad.append(_bad_row(place, row, error))
    return found, bad


def _sample(place: int, content: Mapping[str, Any], where: str) -> Sample:
    video, question = video_of(content), first_question(content)
    check_unicode(video, question)
    prepare_query(question)  # refuses an empty one
    key = sample_key(content.get("id"), video, question)
    try:
        duration_s, bad_duration = _duration_s(content), False
    except InputError:
        duration_s, bad_duration = None, True
    return Sample(place, key, video, question, duration_s, where, content, bad_duration)


def _bad_row(place: int, row: Row, error: InputError) -> BadRow:
    reason = " ".join(str(error).split())
    if isinstance(row.content, Malformed):
        is_json = row.content.is_json
        sample = row_digest(row.content.content) if is_json else ""
        return BadRow(place, row.where, "the row", reason, MALFORMED if is_json else NOT_JSON, sample)
    name = row.content.get("video", f"id {row.content.get('id')!r}")
    try:
        key = key_of_row(row.content).key if is_video_row(row.content) else None
    except InputError:
        key = None
    return BadRow(place, row.where, " ".join(str(name).split())[:300], reason, MALFORMED, row_digest(row.content), key)


def _duration_s(row: Mapping[str, Any]) -> float | None:
    for name in _DURATIONS:
        value = row.get(name)
        if value is None:
            continue
        if not is_number(value):
            raise InputError(f"{name} is not a number")
        check_duration_s(value)
        return float(value)
    return None
