"""Translation: each query, with its options, as a native speaker of another language asks it, by a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.inductor.tagging.jobs import Job, run_job
from tam_plugin.inductor.tagging.prompts import LANGUAGE_NAMES, Messages, translate_messages
from tam_plugin.inductor.tagging.replies import parse_translation
from tam_plugin.inductor.tagging.rows import Row
from tam_plugin.inductor.tagging.run import Outcome
from tam_plugin.inductor.tagging.settings import ChatSettings


def job(language: str) -> Job:
    """The job of translating into a language.

    Raises:
        InputError: no language of that code is known.
    """
    if language not in LANGUAGE_NAMES:
        raise InputError(f"--to {language!r}: expected one of {', '.join(sorted(LANGUAGE_NAMES))}")

    def messages(row: Row, previous_error: str | None) -> Messages:
        return translate_messages(row, previous_error, LANGUAGE_NAMES[language])

    def result(row: Row, value: dict[str, Any], model: str) -> Row:
        return {**row, "id": f"{row['id']}#{language}", **value, "language": language, "translation_of": row["id"]}

    return Job("translate", messages, parse_translation, result)


def translate(queries: str | Path, out: str | Path, settings: ChatSettings, *, to: str, **options: Any) -> Outcome:
    """Write the queries in another language, the id ``ID#LANGUAGE`` and ``translation_of``; labels stay.

    Args:
        queries: JSON lines with ``id`` and ``question``.
        out: the results.
        settings: the endpoint.
        to: ISO 639-1 code of the language.
        **options: those of :func:`~tam_plugin.inductor.tagging.jobs.run_job`, as its errors are.
    """
    return run_job(job(to), queries, out, settings, **options)
