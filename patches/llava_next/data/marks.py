"""Marks that a training row's words spell: they are trained as text, and never as an image's place or a role.

A row owns one image mark for its video, or one for each of its images; the host finds them in the human turns, by their
spelling, as it finds the marks of the chat format. Whatever else spells a mark was written by somebody. The host itself
counts none of them: a second image mark shows the next row's picture, or the same one again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.patches.llava_next.model.multimodal import IMAGE_TOKEN_INDEX
from tam_plugin.patches.words import Words, encode_prompt, holds_mark
from tam_plugin.plans.keys import HUMAN

IMAGE_TOKEN = "<image>"
START, END = "<im_start>", "<im_end>"
"""Around an image mark with ``--mm_use_im_start_end``."""
MESSAGE_BY_MESSAGE = {"qwen": "preprocess_qwen", "llama_v3": "preprocess_llama3"}
"""Conversation versions whose turns the host encodes one by one by a chat template, and its function for that; for the
others, and in hosts before 2024-06, it makes one long text."""
NOISE = "QA_GT_caption_based_noisy"
"""The host takes this out of the turns of videos and images."""
_OWN = re.compile(f"({START})?{IMAGE_TOKEN}({END})?")
_PROBE = "words"

Turns = list[dict[str, Any]]


def own_marks(record: dict[str, Any]) -> int:
    """Image marks that belong to a row: one for each image, one for a video, none for text."""
    if "image" in record:
        return len(record["image"]) if isinstance(record["image"], list) else 1
    return int("video" in record)


def with_own_mark_first(value: str, lines: Sequence[str] = ()) -> str:
    """The turn of a video, its own image mark first, then ``lines``, then its words.

    The own mark is the one that the turn begins with, or ends with, or else the first; any other is left as it is.
    Without a mark the turn gets one, since nothing would be seen of the video.
    """
    count = value.count(IMAGE_TOKEN)
    if count == 1 and not lines:
        return value  # the host puts it first
    is_last = value.rstrip().endswith(IMAGE_TOKEN) and not value.lstrip().startswith(IMAGE_TOKEN)
    before, _, after = value.rpartition(IMAGE_TOKEN) if is_last else value.partition(IMAGE_TOKEN)
    words = before + after if count else value
    return "\n".join([IMAGE_TOKEN, *lines, words if lines else words.strip()])


def spell_marks(tokenizer: Any, conversations: Sequence[dict[str, Any]], own: int) -> bool:
    """Whether the words of a row spell a mark.

    Args:
        tokenizer: the host's.
        conversations: the host's turns.
        own: image marks that belong to the row; without any, the host takes none for a mark.
    """
    has_images = own > 0
    for turn in conversations:
        words = str(turn["content"] if "role" in turn and "content" in turn else turn.get("value", ""))
        if turn.get("role", turn.get("from")) in HUMAN:
            found = min(own, words.count(IMAGE_TOKEN))
            own, words = own - found, words.replace(IMAGE_TOKEN, "", found)
        for text in {words, words.replace(NOISE, "")}:
            if (has_images and IMAGE_TOKEN in text) or holds_mark(tokenizer, text):
                return True
    return False


def arranged(conversations: Sequence[dict[str, Any]], own: int, *, use_im_start_end: bool) -> Turns:
    """The turns as the host's ``preprocess_multimodal`` makes them of ordinary ones; marks in words are kept."""
    turns = [dict(turn) for turn in conversations]
    mark = f"{START}{IMAGE_TOKEN}{END}" if use_im_start_end else IMAGE_TOKEN
    for turn in turns:
        pieces = turn["value"].split(IMAGE_TOKEN, own) if turn.get("from") in HUMAN else [turn["value"]]
        own -= len(pieces) - 1
        if len(pieces) == 2 and pieces[0]:
            pieces = ["", "\n" + "".join(pieces).strip()]
        turn["value"] = mark.join(piece.replace(NOISE, "") for piece in pieces)
    return turns


class WordsTokenizer:
    """The host's tokenizer for one row: its ``preprocess`` encodes the chat format by it, and words as text.

    Args:
        tokenizer: the host's.
        own: image marks that belong to the row; they are the first ones in its human turns.
    """

    def __init__(self, tokenizer: Any, own: int) -> None:
        self._tokenizer = tokenizer
        self._own = own
        self.chat_template: str | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self._tokenizer(*args, **more)

    def __deepcopy__(self, memo: dict[int, Any]) -> WordsTokenizer:
        """Itself: the host copies its tokenizer for each row, to add the image mark to the copy."""
        return self

    def add_tokens(self, *args: Any, **more: Any) -> int:
        """Nothing: the image mark needs no token here."""
        return 0

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The tokenizer's ids; for the image mark the host's."""
        return IMAGE_TOKEN_INDEX if tokens == IMAGE_TOKEN else self._tokenizer.convert_tokens_to_ids(tokens)

    def apply_chat_template(self, conversation: Sequence[dict[str, str]]) -> list[int]:
        """Ids of one message.

        Raises:
            InputError: the tokenizer cannot write a mark that stands in the words as text.
        """
        (message,) = conversation
        content, probe = message["content"], f" {_PROBE} "
        rendered = self._rendered(message["role"], probe)
        if probe not in rendered:  # the template strips
            content, probe = content.strip(), _PROBE
        before, _, after = rendered.partition(probe)
        return encode_prompt(self._tokenizer, [before, *self._parts(message["role"], content), after])

    def _rendered(self, role: str, content: str) -> str:
        chosen = {} if self.chat_template is None else {"chat_template": self.chat_template}
        message = [{"role": role, "content": content}]
        return str(self._tokenizer.apply_chat_template(message, tokenize=False, **chosen))

    def _parts(self, role: str, content: str) -> list[str | int]:
        parts: list[str | int] = []
        at = 0
        if role == "user":
            for found in _OWN.finditer(content):
                if self._own == 0:
                    break
                self._own -= 1
                parts += [Words(content[at : found.start()]), found[1] or "", IMAGE_TOKEN_INDEX, found[2] or ""]
                at = found.end()
        return [*parts, Words(content[at:])]


def check_version(version: str, host: ModuleType) -> None:
    """Refuse a row whose words spell a mark where the host cannot be led to take them for text.

    Args:
        version: of the conversation.
        host: the module that defines the host's dataset and preprocessing.

    Raises:
        InputError: turns are not encoded one by one, see :data:`MESSAGE_BY_MESSAGE`.
    """
    function = getattr(host, MESSAGE_BY_MESSAGE.get(version, ""), None)
    if function is None or "apply_chat_template" not in inspect.unwrap(function).__code__.co_names:
        raise InputError(
            f"its text spells a special token or a second {IMAGE_TOKEN}, which this host's conversations of version "
            f"{version!r} would take for their own: take it out of the text"
        )


def check_places(input_ids: Any, own: int, *, is_video: bool) -> None:
    """Refuse an item whose places are not its images: the host would give the rest to the next row of the batch.

    A picture without a place is allowed, as in the host, which passes over it; a video without one is not.

    Raises:
        InputError: with both counts.
    """
    count = int((input_ids == IMAGE_TOKEN_INDEX).sum())
    if max(count, 1) != max(own, 1) or count < int(is_video):
        raise InputError(f"its text has {count} {IMAGE_TOKEN} marks of its own: expected {own}")
