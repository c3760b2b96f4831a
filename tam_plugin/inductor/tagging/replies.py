"""Reading a model's reply strictly: thinking is passed over, one JSON object is wanted, nothing is guessed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from tam_plugin.inductor.tagging.rows import Row
from tam_plugin.taxonomy import TaskType

LONGEST_PARAPHRASE = 4
"""A paraphrase has at most this many times the characters of the question."""

_THINK_OPEN = re.compile(r"<think(?:ing)?>", re.IGNORECASE)
_THINK_CLOSE = re.compile(r"</think(?:ing)?>", re.IGNORECASE)


class ReplyError(Exception):
    """A reply that cannot be used; the text goes into the next request and into the list of those set aside."""


@dataclass(frozen=True)
class Reply:
    """What the model said.

    Attributes:
        text: the message's content, with a block of thinking where the server leaves it in.
        reasoning: the thinking, where the server gives it apart.
        finish_reason: ``"stop"``, ``"length"``, ... as the server says it, or None.
    """

    text: str
    reasoning: str | None = None
    finish_reason: str | None = None


def answer_part(reply: Reply) -> str:
    """The text after the thinking.

    Raises:
        ReplyError: the thinking never ends, or nothing follows.
    """
    cut = ", which was cut off at the limit of tokens" if reply.finish_reason == "length" else ""
    # Some servers leave out the opening tag, because their template writes it.
    text = _THINK_CLOSE.split(reply.text)[-1]
    if _THINK_OPEN.search(text):
        raise ReplyError(f"the thinking has no end{cut}")
    if not text.strip():
        raise ReplyError(f"there is no answer in the reply{cut}")
    return text


def parse_tag(reply: Reply, row: Row) -> dict[str, Any]:
    """``label`` (1-8) and ``label2`` (1-8 or None) of a reply.

    Raises:
        ReplyError: not exactly one JSON object, or its ``task`` is not exactly one category.
    """
    values = _one_object(answer_part(reply), "task")
    task = _category(values["task"], "task")
    second = values.get("second")
    if second is None or (isinstance(second, str) and second.strip().lower() in ("", "null", "none")):
        return {"label": task.index, "label2": None}
    other = _category(second, "second")
    if other is task:
        raise ReplyError(f"second repeats task ({task.label!r}); expected another category or null")
    return {"label": task.index, "label2": other.index}


def parse_paraphrase(reply: Reply, row: Row) -> dict[str, Any]:
    """``paraphrase`` of a reply.

    Raises:
        ReplyError: not exactly one JSON object with one text, or the text is empty, the question itself, or too long.
    """
    text = _one_object(answer_part(reply), "paraphrase")["paraphrase"]
    question = row["question"].strip()
    if isinstance(text, list):
        raise ReplyError(f"paraphrase is a list of {len(text)}; expected one text")
    if not isinstance(text, str) or not text.strip():
        raise ReplyError(f"paraphrase is {_shown(text)}; expected the question in other words")
    text = text.strip()
    if len(text.splitlines()) > len(question.splitlines()):
        raise ReplyError("paraphrase has several lines; expected one version of the question")
    if _plain(text) == _plain(question):
        raise ReplyError("paraphrase is the question itself; expected other words")
    if len(text) > LONGEST_PARAPHRASE * len(question):
        raise ReplyError(f"paraphrase has {len(text)} characters for a question of {len(question)}; say it shorter")
    return {"paraphrase": text}


def parse_translation(reply: Reply, row: Row) -> dict[str, Any]:
    """``question`` and ``options`` (a list or None) of a reply.

    Raises:
        ReplyError: not exactly one JSON object with one text, an empty text, or other options than the row has.
    """
    values = _one_object(answer_part(reply), "translation")
    text, options = values["translation"], values.get("options")
    if not isinstance(text, str) or not text.strip():
        raise ReplyError(f"translation is {_shown(text)}; expected the question in the other language")
    wanted = len(row.get("options") or ())
    if not isinstance(options, list | None) or not all(isinstance(o, str) and o.strip() for o in options or ()):
        raise ReplyError(f"options is {_shown(options)}; expected a list of {wanted} texts, or null for none")
    if len(options or ()) != wanted:
        raise ReplyError(f"there are {len(options or ())} options in the reply; expected {wanted}, in their order")
    if len(text) > LONGEST_PARAPHRASE * len(row["question"]) + 40:
        raise ReplyError(f"translation has {len(text)} characters for a question of {len(row['question'])}")
    return {"question": text.strip(), "options": [o.strip() for o in options] if options else None}


class _DuplicateKeyError(Exception):
    """An object says one thing twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise _DuplicateKeyError(name)
        values[name] = value
    return values


def _one_object(text: str, key: str) -> dict[str, Any]:
    """The only JSON object in the text, with prose or a fence around it but no second thing that looks like one."""
    start = text.find("{")
    if start < 0:
        raise ReplyError(f'there is no JSON object in the reply; expected {{"{key}": ...}}')
    try:
        values, end = json.JSONDecoder(object_pairs_hook=_unique).raw_decode(text, start)
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except _DuplicateKeyError as error:
        raise ReplyError(f"{str(error)[:40]!r} is given twice; expected it once") from None
    except (ValueError, RecursionError):
        raise ReplyError("the JSON object cannot be read") from None
    around = text[:start] + text[end:]
    if "{" in around or "}" in around or f'"{key}"' in around:
        raise ReplyError("there is more than one JSON object in the reply; expected one")
    if key not in values:
        raise ReplyError(f"the JSON object has no {key!r}; it has {', '.join(map(repr, values))[:80] or 'nothing'}")
    return values


_BY_LABEL = {" ".join(task.label.lower().split()): task for task in TaskType}


def _category(value: Any, key: str) -> TaskType:
    if isinstance(value, list):
        raise ReplyError(f"{key} is a list of {len(value)}; expected one category")
    if not isinstance(value, str):
        raise ReplyError(f"{key} is {_shown(value)}; expected the exact name of one category")
    plain = " ".join(value.lower().split())
    if plain in _BY_LABEL:
        return _BY_LABEL[plain]
    named = [task.label for name, task in _BY_LABEL.items() if name in plain]
    if len(named) > 1:
        raise ReplyError(f"{key} names {len(named)} categories ({', '.join(named)}); expected one")
    raise ReplyError(f"{key} is {_shown(value)}, which is no category; expected the exact name of one")


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]


def _plain(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())
