"""The question inside a request's text: without options, post-prompts, pre-prompts and subtitles."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tam_plugin.errors import InputError
from tam_plugin.inductor.text import prepare_query

QUESTION_FIELDS = ("question", "query", "prompt")
"""Columns in which tasks keep the question alone."""
OPTION_FIELDS = ("options", "option", "candidates", "choices")
"""Columns in which tasks keep answer options."""

_SUBTITLES = re.compile(r"^.{0,60}\b(?:subtitles?|transcript)\b[^\n:]{0,40}:[ \t]*\n", re.IGNORECASE | re.MULTILINE)
_AFTER_SUBTITLES = re.compile(
    r"^(?:(?:please\s+)?(?:select|choose|answer|watch|based on|according to)\b|question\s*:)",
    re.IGNORECASE | re.MULTILINE,
)
_OPTION_WORD = re.compile(r"\boptions?\s*:\s*$", re.IGNORECASE)


class Question(NamedTuple):
    """What the Inductor is asked.

    Attributes:
        text: the question.
        options: answer options, if the request has any.
    """

    text: str
    options: tuple[str, ...]


def question_of(context: str, doc: Mapping[str, Any]) -> Question | None:
    """The question of a request, or None if there is none in it.

    The task's own column is trusted where the request's text holds its words; elsewhere the text alone decides.

    Args:
        context: the request's text, as the model reads it.
        doc: the task's row.
    """
    asked, rest = _by_column(context, doc)
    try:
        whole = prepare_query(_without_subtitles(rest))
        question = prepare_query(asked) if asked else whole
    except InputError:  # nothing but blanks and placeholders
        return None
    if not any(character.isalnum() for character in question.text):
        return None
    # Words that only say how to answer are a question where a task asks so ("Choose the caption that fits"), and none
    # where its own question is blank.
    blank = any(isinstance(doc.get(name), str) and not doc[name].strip() for name in QUESTION_FIELDS)
    if blank and not asked and not question.asks:
        return None
    options = question.options or whole.options or _options(doc)
    return Question(_OPTION_WORD.sub("", question.text).rstrip() or question.text, options)


def _by_column(context: str, doc: Mapping[str, Any]) -> tuple[str | None, str]:
    """The question as the context words it, and the context from there on."""
    for name in QUESTION_FIELDS:
        value = doc.get(name)
        if not isinstance(value, str) or not value.strip():
            continue
        # Subtitles, which stand before it, may hold the same words.
        place = context.casefold().rfind(value.strip().casefold())
        if place >= 0:
            return context[place : place + len(value.strip())], context[place:]
    return None, context


def _without_subtitles(text: str) -> str:
    """The text after a block of subtitles: from the last line that opens as an instruction or a question does."""
    heading = _SUBTITLES.search(text)
    if heading is None:
        return text
    block = text[heading.end() :]
    openings = [match.start() for match in _AFTER_SUBTITLES.finditer(block)]
    paragraphs = re.split(r"\n\s*\n", block.strip())
    # The last opening may be the post-prompt below the question.
    return block[openings[0] :] if openings else paragraphs[-1]


def _options(doc: Mapping[str, Any]) -> tuple[str, ...]:
    """The row's options; some tasks keep the list as a string."""
    for name in OPTION_FIELDS:
        value = doc.get(name)
        if isinstance(value, str):
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                value = value.splitlines()
        if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 1:
            return tuple(str(option) for option in value)
    return ()
