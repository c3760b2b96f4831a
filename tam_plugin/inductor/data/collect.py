"""``tam data collect``: queries from instruction data, host lists and tables, as one file of records.

An instruction row gives a query for each human turn that asks something, with the id ``ID#turn``; rows about images or
text only are left out unless asked for, and answers always are. A table's row gives one query. Questions go through
:func:`~tam_plugin.inductor.text.prepare_query`, so placeholders and instructions on the form of the answer are gone
and lettered options stand apart. Streamed formats are never held in memory; the ids of the output are, about 200 bytes
each. The output takes its place when all is read, so an interrupted run leaves nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError, check_unicode
from tam_plugin.inductor.data import columns as cols
from tam_plugin.inductor.data.columns import Columns
from tam_plugin.inductor.data.conversations import human_turns, is_conversation, medium
from tam_plugin.inductor.data.formats import Malformed
from tam_plugin.inductor.data.records import Record, UniqueIds
from tam_plugin.inductor.data.sources import Source, expand, sampled_rows
from tam_plugin.inductor.text import prepare_query
from tam_plugin.storage import replace_file

ID_KINDS = ("own", "prefixed", "row")
"""Ids as the data has them, with the file's stem before them (``STEM/ID``), or made of file and row (``STEM:ROW``)."""
_REMEDY = "--ids prefixed or row makes ids that differ, --column id=NAME,NAME joins columns"


@dataclass(frozen=True)
class CollectOptions:
    """Settings of :func:`collect`.

    Attributes:
        dataset: name of the source; None takes a row's ``dataset`` or else the file's stem.
        columns: role → column names, see :func:`~tam_plugin.inductor.data.columns.parse_columns`.
        ids: one of :data:`ID_KINDS`; rows without an id get ``STEM:ROW`` in any case.
        all_media: keep instruction rows about images or text only as well.
        skip_bad: leave malformed rows out and list them, instead of stopping at the first.
        seed: of ``random:N`` in a list.
    """

    dataset: str | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ids: str = "own"
    all_media: bool = False
    skip_bad: bool = False
    seed: int = 0


@dataclass
class CollectReport:
    """What :func:`collect` did: counts, reasons, and malformed rows as ``file:row: why``."""

    files: int = 0
    rows: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    bad: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """One line."""
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        reasons += [f"{len(self.bad)} malformed rows"] if self.bad else []
        cut = f"; {self.truncated} long questions truncated" if self.truncated else ""
        files = f"{self.files} file{'s' if self.files != 1 else ''}"
        return (
            f"{files}: {self.rows} rows read, {self.kept} queries kept, left out: {', '.join(reasons) or 'none'}{cut}"
        )


def collect(sources: Sequence[str], out: str | Path, options: CollectOptions | None = None) -> CollectReport:
    """Collect the queries of ``sources`` (files, brace patterns, YAML lists) into the JSON-lines file ``out``.

    Raises:
        InputError: a source is missing, malformed or without a query; two queries have one id; or the output cannot be
            written. The message names file and row.
        MissingDependencyError: parquet without pyarrow.
    """
    from tqdm import tqdm

    options = options or CollectOptions()
    if options.ids not in ID_KINDS:
        raise InputError(f"ids = {options.ids!r}: expected one of {', '.join(ID_KINDS)}")
    if options.dataset is not None and not options.dataset.strip():
        raise InputError("the data set's name is empty")
    groups = [(src, expand(src)) for src in sources]
    for _, files in groups:
        for source in files:
            if _same_file(source.path, out):
                raise InputError(f"{source.path!r} is both read and written; give --out another name")
    report, ids = CollectReport(), UniqueIds()
    with replace_file(out) as file, tqdm(disable=None, unit=" queries", desc="collect") as bar:
        for src, files in groups:
            before = report.kept
            for source in files:
                for record, row in _queries(source, options, report):
                    ids.add(record.id, source.path, row, remedy=_REMEDY)
                    file.write(record.to_json() + "\n")
                    bar.update()
            if report.kept == before:
                raise InputError(f"{src!r} holds no query ({report.summary()})")
    return report


def _same_file(path: str, out: str | Path) -> bool:
    return os.path.exists(path) and os.path.exists(out) and os.path.samefile(path, out)


def _queries(source: Source, options: CollectOptions, report: CollectReport) -> Iterator[tuple[Record, int]]:
    """Records of one file with their row numbers; counts into ``report``."""
    columns = Columns(options.columns)
    report.files += 1
    before = report.rows
    for number, row in sampled_rows(source, seed=options.seed):
        report.rows += 1
        try:
            if isinstance(row, Malformed):
                raise InputError(row.reason)
            records = list(_row_queries(row, source.path, number, columns, options, report))
        except InputError as error:
            message = f"{source.path}:{number}: {error}"
            if not options.skip_bad:
                raise InputError(f"{message} (--skip-bad leaves such rows out)") from error
            report.bad.append(message)
            continue
        report.kept += len(records)
        for record in records:
            yield record, number
    if report.rows == before:
        raise InputError(f"{source.path!r} is empty; expected rows with questions")


def _row_queries(
    row: Mapping[str, Any],
    path: str,
    number: int,
    columns: Columns,
    options: CollectOptions,
    report: CollectReport,
) -> Iterator[Record]:
    stem = Path(path).stem
    own = cols.id_of(row, columns)
    name = f"{stem}:{number}" if own is None or options.ids == "row" else own
    if own is not None and options.ids == "prefixed":
        name = f"{stem}/{own}"
    dataset = columns.value(row, "dataset")
    if options.dataset is not None or not isinstance(dataset, str) or not dataset.strip():
        dataset = options.dataset or stem
    where = f"{path}:{number}"
    check_unicode(name, dataset)
    duration_s = cols.duration_of(row, columns)
    if not is_conversation(row):
        question = cols.question_of(row, columns)
        given = cols.options_of(row, columns)
        label, label2 = cols.labels_of(row, columns)
        text, written = _prepare(question, report)
        yield Record(name, text, given or written or None, duration_s, dataset, where, label, label2)
        return
    kind = medium(row)
    if kind != "video" and not options.all_media:
        report.left_out["rows of images" if kind == "image" else "rows of text only"] += 1
        return
    turns = list(human_turns(row))
    if not turns:
        report.left_out["rows without a human turn"] += 1
    for turn, question in turns:
        try:
            text, written = _prepare(question, report)
        except InputError:
            report.left_out["turns without a question"] += 1
            continue
        yield Record(f"{name}#{turn}", text, written or None, duration_s, dataset, where)


def _prepare(question: str, report: CollectReport) -> tuple[str, tuple[str, ...]]:
    prepared = prepare_query(question)
    report.truncated += prepared.notice is not None
    return prepared.text, prepared.options
