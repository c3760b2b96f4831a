"""Paraphrasing: each query in other words that mean the same, by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tam_plugin.inductor.tagging.jobs import Job, run_job
from tam_plugin.inductor.tagging.prompts import paraphrase_messages
from tam_plugin.inductor.tagging.replies import parse_paraphrase
from tam_plugin.inductor.tagging.rows import Row
from tam_plugin.inductor.tagging.run import Outcome
from tam_plugin.inductor.tagging.settings import ChatSettings


def _result(row: Row, value: dict[str, Any], model: str) -> Row:
    return {**row, "id": f"{row['id']}#p", "question": value["paraphrase"], "paraphrase_of": row["id"]}


PARAPHRASE = Job("paraphrase", paraphrase_messages, parse_paraphrase, _result)


def paraphrase(queries: str | Path, out: str | Path, settings: ChatSettings, **options: Any) -> Outcome:
    """Write the queries with another ``question``, the id ``ID#p`` and ``paraphrase_of``; labels and options stay.

    Arguments and errors are those of :func:`~tam_plugin.inductor.tagging.jobs.run_job`.
    """
    return run_job(PARAPHRASE, queries, out, settings, **options)
