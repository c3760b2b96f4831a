"""Human turns of LLaVA-format instruction rows, and what kind of medium a row is about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tam_plugin.errors import InputError, check_unicode

_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant", "system", "function", "tool")


def is_conversation(row: Mapping[str, Any]) -> bool:
    """Whether a row is an instruction row rather than a table's."""
    return row.get("conversations") is not None


def medium(row: Mapping[str, Any]) -> str:
    """``"video"``, ``"image"`` or ``"text"``, by the keys that the host goes by."""
    for name in ("video", "image"):
        if row.get(name):
            return name
    return "text"


def human_turns(row: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """The number (from 1) and text of each human turn.

    Raises:
        InputError: the conversation is not a list of ``{"from", "value"}`` or ``{"role", "content"}``, or names a
            speaker that is neither a person nor a model.
    """
    turns = row["conversations"]
    if not isinstance(turns, list) or not turns:
        raise InputError(f"conversations must be a list of turns, got {str(turns)[:60]!r}")
    number = 0
    for turn in turns:
        if not isinstance(turn, dict):
            raise InputError(f"a turn must be an object with from and value, got {str(turn)[:60]!r}")
        speaker = turn.get("from", turn.get("role"))
        text = turn.get("value", turn.get("content"))
        if speaker in _ANSWERS:
            continue
        if speaker not in _ASKS:
            raise InputError(f"a turn is from {speaker!r}; expected human or gpt (or user or assistant)")
        number += 1
        if not isinstance(text, str):
            raise InputError(f"the text of human turn {number} must be text, got {str(text)[:60]!r}")
        check_unicode(text)
        yield number, text
