"""Words that stay words: what others wrote, as token ids that are never an image's place, a role or another mark.

Questions, options, subtitles and answers come from users and data sets. A chat format tells its parts apart by special
tokens, so text that spells one of these must not become one. Both hosts build their prompts by this.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Collection, Sequence
from typing import Any

from tam_plugin.errors import InputError

_SHOWN = 60
"""Characters of a text that an error quotes."""


class Words(str):
    """A part of a prompt in which nothing is a mark."""


def special_tokens(tokenizer: Any) -> dict[str, int]:
    """Every special token of a tokenizer and its id, without the one that only says "unknown"."""
    found = {str(token): number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    named = {name: tokenizer.convert_tokens_to_ids(name) for name in tokenizer.all_special_tokens}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    unknown = {tokenizer.unk_token_id} - ends
    return {name: number for name, number in {**named, **found}.items() if number is not None and number not in unknown}


def holds_mark(tokenizer: Any, text: str) -> bool:
    """Whether the tokenizer, asked plainly, would read a special token out of ``text``."""
    return not set(special_tokens(tokenizer).values()).isdisjoint(_plain(tokenizer, text))


def encode_words(tokenizer: Any, text: str, marks: Collection[int] = ()) -> list[int]:
    """Token ids of ``text`` alone, none of which is a special token.

    Args:
        tokenizer: of transformers, fast or not.
        text: what somebody else wrote.
        marks: ids of further tokens that must not come of it, special or not.

    Raises:
        InputError: the tokenizer cannot write a mark that stands in the text as text.
    """
    forbidden = set(special_tokens(tokenizer).values()) | set(marks)
    ids = _plain(tokenizer, text)
    if forbidden.isdisjoint(ids):
        return ids
    if getattr(tokenizer, "is_fast", False):
        ids = _without_marks(tokenizer, forbidden).encode(text, add_special_tokens=False).ids
    else:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if not forbidden.isdisjoint(ids):
        name = next(tokenizer.convert_ids_to_tokens(number) for number in ids if number in forbidden)
        raise InputError(f"the text {text[:_SHOWN]!r} spells {name!r}, which this tokenizer cannot write as text")
    return ids


def encode_prompt(tokenizer: Any, parts: Sequence[str | int]) -> list[int]:
    """Token ids of a prompt.

    Neighbouring text is encoded in one piece up to the next special token, as a tokenizer would encode the whole.

    Args:
        tokenizer: of transformers.
        parts: the chat format, in which special tokens are themselves; :class:`Words`; and ids that are taken as they
            are.

    Raises:
        InputError: see :func:`encode_words`.
    """
    special = special_tokens(tokenizer)
    longest_first = sorted(map(re.escape, special), key=len, reverse=True)
    pattern = re.compile(f"({'|'.join(longest_first)})" if special else "(?!)")
    ids: list[int] = []
    text = ""
    for part in parts:
        pieces = [part] if isinstance(part, (int, Words)) else pattern.split(part)
        for piece in pieces:
            number = piece if isinstance(piece, int) else None if isinstance(piece, Words) else special.get(piece)
            if number is None:
                text += str(piece)
                continue
            ids += [*encode_words(tokenizer, text), number] if text else [number]
            text = ""
    return ids + encode_words(tokenizer, text) if text else ids


def _plain(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


_COPIES: weakref.WeakKeyDictionary[Any, tuple[Any, Any]] = weakref.WeakKeyDictionary()


def _without_marks(tokenizer: Any, marks: Collection[int]) -> Any:
    """A copy of the backend that finds no marks; the tokenizer's own setting is shared by all who use it."""
    from tokenizers import Tokenizer

    key = len(tokenizer), frozenset(marks)
    known = _COPIES.get(tokenizer)
    if known is None or known[0] != key:
        values = json.loads(tokenizer.backend_tokenizer.to_str())
        values.update(truncation=None, padding=None)
        for token in values["added_tokens"]:
            token["special"] = token["special"] or token["id"] in marks
        copy = Tokenizer.from_str(json.dumps(values))
        copy.encode_special_tokens = True
        known = _COPIES[tokenizer] = key, copy
    return known[1]
