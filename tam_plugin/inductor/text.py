"""The Inductor's input text: one documented format made from a query, its answer options and the duration.

The format is one line::

    {question} ; options: {option} | {option} | ... ; length: {short|medium|long}

The parts after the question appear only when they are known (and, for the length, when the checkpoint was trained
with it). Left out of the question: image and video placeholders, instructions on the form of the answer ("Answer with
the option's letter ..."), and answer options written below the question, which join the options. A bounding box in
numbers becomes ``[box]``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tam_plugin.errors import InputError, TamNotice, check_unicode
from tam_plugin.inductor.instructions import INSTRUCTIONS, OPTION_HEADING, ROLE, SENTENCE_START
from tam_plugin.taxonomy import check_duration_s, length_class

MAX_QUERY_CHARS = 2000
"""A longer query keeps this many characters: the first quarter and the last three quarters of them."""
MAX_OPTIONS = 12
"""Options after this many are left out: they are of the same kind as those before."""
MAX_OPTION_CHARS = 160
"""An option keeps this many characters."""


class QueryTruncatedWarning(TamNotice):
    """A query was longer than the Inductor reads; the message says what was kept."""


@dataclass(frozen=True)
class PreparedQuery:
    """A query as the Inductor reads it.

    Attributes:
        text: the question alone, on one line.
        options: answer options that were written below the question.
        notice: one line for the user when the query was truncated, else None.
        asks: whether it holds more than instructions on the form of the answer; they are the text where it does not.
    """

    text: str
    options: tuple[str, ...] = ()
    notice: str | None = None
    asks: bool = True


_PLACEHOLDER = re.compile(r"<\s*/?\s*(?:image|video|audio|speech|vid|img|im_start|im_end)[^<>]{0,20}>", re.IGNORECASE)
_NUMBER = r"\s*\(?\s*-?\d+(?:\.\d+)?\s*\)?\s*"
_BOX = re.compile(rf"[\[(<]{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}[\])>]")
_ALPHABETS = ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "АБВГДЕЖЗ", "가나다라마바사", "أبجدهوز", "कखगघङच", "①②③④⑤⑥⑦⑧⑨")
"""What options are lettered by, in order."""
_OPTION_LINE = re.compile(
    rf"^\s*[(（]?(?:([{''.join(_ALPHABETS[:-1])}])\s*[.):：、．）]|([{_ALPHABETS[-1]}]))\s*(\S.*)$"
)
_BLANK = re.compile(r"\s+")


def prepare_query(query: str) -> PreparedQuery:
    """Strip a query down to its question, within :data:`MAX_QUERY_CHARS`.

    Raises:
        InputError: not a string, no valid Unicode, or nothing but blanks and placeholders.
    """
    if not isinstance(query, str):
        raise InputError(f"a query must be text, got {type(query).__name__}")
    check_unicode(query, what="the query")
    raw = query.strip()
    notice = None
    if len(raw) > MAX_QUERY_CHARS:
        head = MAX_QUERY_CHARS // 4
        tail = MAX_QUERY_CHARS - head
        notice = (
            f"the query has {len(raw)} characters; the Inductor reads at most {MAX_QUERY_CHARS}, "
            f"so it was truncated to the first {head} and the last {tail}"
        )
        raw = f"{raw[:head]} {raw[-tail:]}"
    text = _PLACEHOLDER.sub(" ", raw)
    if not text.strip():
        raise InputError("the query is empty; expected a question or a request about the video")
    question, options = _split_options(text)
    asked = _one_line(_strip_instructions(question))
    question = asked or _one_line(text)
    return PreparedQuery(ROLE.sub("", question) or question, options, notice, asks=bool(asked))


def build_input(
    query: str | PreparedQuery,
    *,
    options: Sequence[str] | None = None,
    duration_s: float | None = None,
    use_options: bool = True,
    use_duration: bool = True,
) -> str:
    """The text that a checkpoint reads, in the module's format.

    Args:
        query: the user's words, or what :func:`prepare_query` made of them.
        options: answer options; they win over options written in the query.
        duration_s: the video's duration in seconds, or None when unknown.
        use_options: whether the checkpoint was trained with options.
        use_duration: whether the checkpoint was trained with the length class.

    Raises:
        InputError: empty query, options that are not text, or a duration that is not a positive finite number.
    """
    prepared = query if isinstance(query, PreparedQuery) else prepare_query(query)
    check_duration_s(duration_s)
    chosen = clean_options(options) or prepared.options
    parts = [prepared.text]
    if use_options and chosen:
        parts.append("options: " + " | ".join(chosen))
    if use_duration and duration_s is not None:
        parts.append(f"length: {length_class(float(duration_s))}")
    return " ; ".join(parts)


def clean_options(options: Sequence[str] | None) -> tuple[str, ...]:
    """Options on one line each, without their letters, at most :data:`MAX_OPTIONS` of :data:`MAX_OPTION_CHARS`.

    Raises:
        InputError: ``options`` is one string, or holds something that is not text or no valid Unicode.
    """
    if options is None:
        return ()
    if isinstance(options, str) or not isinstance(options, Sequence):
        raise InputError(f"options must be a list of texts, got {type(options).__name__} {str(options)[:60]!r}")
    cleaned = []
    for option in options[:MAX_OPTIONS]:
        if not isinstance(option, str):
            raise InputError(f"options must be a list of texts, got an option {option!r}")
        check_unicode(option, what="the option")
        line = option[: 4 * MAX_OPTION_CHARS]
        match = _OPTION_LINE.match(line)
        line = _one_line(match.group(3) if match else line)[:MAX_OPTION_CHARS].rstrip(" .")
        if line:
            cleaned.append(line)
    return tuple(cleaned)


def _one_line(text: str) -> str:
    return _BLANK.sub(" ", _BOX.sub("[box]", text)).strip()


def _split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Take lines lettered A, B, C ... or in another alphabet out of the text, when two or more are in order."""
    lines = text.splitlines()
    found: list[tuple[int, str]] = []
    alphabet = None
    for number, line in enumerate(lines):
        match = _OPTION_LINE.match(line)
        letter = (match.group(1) or match.group(2)) if match else ""
        alphabet = alphabet or next((a for a in _ALPHABETS if a[0] == letter), None)
        if match and alphabet and letter == alphabet[len(found) : len(found) + 1]:
            found.append((number, match.group(3)))
    if len(found) < 2:
        return text, ()
    taken = {number for number, _ in found}
    rest = "\n".join(line for number, line in enumerate(lines) if number not in taken)
    rest = OPTION_HEADING.sub(" ", rest)
    return (rest, clean_options([option for _, option in found])) if rest.strip() else (text, ())


def _strip_instructions(text: str) -> str:
    """Remove instructions on the form of the answer where they open a sentence."""

    def blank_at_sentence_start(match: re.Match[str]) -> str:
        opens = SENTENCE_START.search(text[max(0, match.start() - 80) : match.start()] or "\n")
        asks = text[match.end() : match.end() + 1] in ("?", "？", "؟")
        return " " if opens and not asks else match.group(0)

    stripped = INSTRUCTIONS.sub(blank_at_sentence_start, text)
    if stripped != text:
        stripped = re.sub(r"(?<=[.!?\s])(?:\s*[.!:]+)+(?=\s|$)", "", " " + stripped)
    return stripped.strip()
