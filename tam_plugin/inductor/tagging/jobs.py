"""A job on a file of queries, from the file to the results: what tagging and paraphrasing share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError, require
from tam_plugin.inductor.tagging.answers import AnswerStore
from tam_plugin.inductor.tagging.prompts import BuildMessages, prompt_version
from tam_plugin.inductor.tagging.rows import QueryFile, Row
from tam_plugin.inductor.tagging.run import Limits, Outcome, Parse, run
from tam_plugin.inductor.tagging.settings import ChatSettings
from tam_plugin.storage import replace_records


@dataclass(frozen=True)
class Job:
    """What is asked of a row, and what becomes of it.

    Attributes:
        name: in messages and in the store.
        build_messages: see :func:`~tam_plugin.inductor.tagging.run.run`, as for ``parse``.
        result: the row of the output, from the row, ``parse``'s value and the model's name.
    """

    name: str
    build_messages: BuildMessages
    parse: Parse
    result: Callable[[Row, dict[str, Any], str], Row]


def run_job(
    job: Job,
    queries: str | Path,
    out: str | Path,
    settings: ChatSettings,
    *,
    limits: Limits | None = None,
    limit: int | None = None,
    restart: bool = False,
) -> Outcome:
    """Do a job on a file of queries; the same call goes on where one that was killed stopped.

    Args:
        job: what to do.
        queries: JSON lines with ``id`` and ``question``.
        out: the results, in the order of the queries, written when all are done. ``OUT.answers.jsonl`` keeps every
            answer as it arrives, ``OUT.rejected.jsonl`` lists the queries that were set aside, with the ``reason``.
        settings: the endpoint.
        limits: how far to go.
        limit: the first so many queries only.
        restart: begin anew; the answers so far are put aside as ``OUT.answers.jsonl.old``.

    Raises:
        InputError: a file is wrong or in use, no query can be answered, or the limit of cost was reached.
        KeyboardInterrupt: Ctrl-C; what was answered is kept.
    """
    out = Path(out)
    if limit is not None and limit < 1:
        raise InputError(f"--limit {limit}: expected a whole number >= 1")
    store_path, rejected_path = (Path(f"{out}.{kind}.jsonl") for kind in ("answers", "rejected"))
    _check_paths(Path(queries), out, (store_path, rejected_path))
    rows = QueryFile.check(queries, limit=limit)
    header = {
        "job": job.name,
        "prompt": prompt_version(job.name, job.build_messages),
        "model": settings.model,
        "temperature": settings.temperature,
        "extra_body": dict(settings.extra_body),
        "input_sha256": rows.sha256,
    }
    limits = limits or Limits()
    require("httpx", needed_for=f"tam data {job.name}", extra="tagging")
    with AnswerStore(store_path, header, restart=restart) as store:
        outcome = run(
            rows,
            rows.num_rows,
            build_messages=job.build_messages,
            parse=job.parse,
            store=store,
            settings=settings,
            limits=limits,
        )
        _say_if_stopped(job, outcome, rows, store)
        replace_records(rejected_path, _set_aside(rows, outcome))
        if not any(row["id"] in outcome.values for row in rows):
            raise InputError(f"not one query got a usable answer; the reasons are in {str(rejected_path)!r}")
        count = replace_records(out, _given(job, rows, outcome, settings.model))
    print(_summary(job, outcome, count, rows.num_rows, out, rejected_path), file=sys.stderr)
    return outcome


def _check_paths(queries: Path, out: Path, beside: tuple[Path, ...]) -> None:
    if not out.name or out.is_dir():
        raise InputError(f"--out {str(out)!r}: expected the name of a JSON-lines file")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {str(out)!r}: there is no folder {str(out.parent)!r}")
    for path in (out, *beside):
        if path.resolve() == queries.resolve():
            raise InputError(f"--out {str(out)!r} would write over the queries {str(queries)!r}; name another file")


def _say_if_stopped(job: Job, outcome: Outcome, rows: QueryFile, store: AnswerStore) -> None:
    if not (outcome.interrupted or outcome.over_budget):
        return
    # The store may hold more than the rows of this run, when an earlier one had a higher --limit.
    finished = sum(row["id"] in outcome.values or row["id"] in outcome.rejected for row in rows)
    if finished + len(outcome.unanswered) >= rows.num_rows:
        return
    so_far = f"{finished} of {rows.num_rows} queries are done ({outcome.spending.describe(finished, rows.num_rows)})"
    kept = f"the answers are in {str(store.path)!r}"
    if outcome.interrupted:
        print(
            f"tam data {job.name}: {so_far}; {kept}, and the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
        raise KeyboardInterrupt
    raise InputError(f"--max-cost is reached: {so_far}; {kept}, and the same command with more goes on from there")


def _given(job: Job, rows: QueryFile, outcome: Outcome, model: str) -> Iterator[Row]:
    for row in rows:
        if row["id"] in outcome.values:
            yield job.result(row, outcome.values[row["id"]], model)


def _set_aside(rows: QueryFile, outcome: Outcome) -> Iterator[Row]:
    for row in rows:
        reason = outcome.rejected.get(row["id"]) or outcome.unanswered.get(row["id"])
        if reason is not None:
            yield {**row, "reason": reason}


def _summary(job: Job, outcome: Outcome, given: int, total: int, out: Path, rejected: Path) -> str:
    text = f"tam data {job.name}: {given} of {total} queries in {out}; {outcome.spending.answers} answers, "
    text += outcome.spending.describe()
    if given < total:
        text += f"; {total - given} set aside in {rejected}"
    if outcome.unanswered:
        text += f", {len(outcome.unanswered)} of them without an answer: the same command asks those again"
    return text
