"""Tagging: the task type of each query, by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tam_plugin.inductor.tagging.jobs import Job, run_job
from tam_plugin.inductor.tagging.prompts import tag_messages
from tam_plugin.inductor.tagging.replies import parse_tag
from tam_plugin.inductor.tagging.rows import Row
from tam_plugin.inductor.tagging.run import Outcome
from tam_plugin.inductor.tagging.settings import ChatSettings


def _result(row: Row, value: dict[str, Any], model: str) -> Row:
    return {**row, "label": value["label"], "label2": value["label2"], "tagger": model}


TAG = Job("tag", tag_messages, parse_tag, _result)


def tag(queries: str | Path, out: str | Path, settings: ChatSettings, **options: Any) -> Outcome:
    """Write the queries with ``label`` (1-8), ``label2`` (1-8 or null) and ``tagger`` (the model's name).

    Labels that the queries had are replaced. Arguments and errors are those of
    :func:`~tam_plugin.inductor.tagging.jobs.run_job`.
    """
    return run_job(TAG, queries, out, settings, **options)
