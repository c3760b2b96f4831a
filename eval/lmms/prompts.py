"""Prompts of LLaVA-NeXT's conversation templates, as lmms-eval's ``llava_vid`` makes them."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.words import Words, encode_prompt, special_tokens

_QUESTION, _PROBE = "question", "answer"
"""Stand for any turn and any answer; no template holds them."""


class Prompts:
    """Turns → token ids.

    Args:
        tokenizer: the checkpoint's.
        template: name of one of the host's conversation templates.
        config: the model's.

    Raises:
        ConfigError: there is no such template.
    """

    def __init__(self, tokenizer: Any, template: str, config: Any) -> None:
        from llava.conversation import conv_templates

        if template not in conv_templates:
            known = ", ".join(sorted(conv_templates))
            raise ConfigError(f"model_args: conv_template = {template!r}: expected one of {known}")
        self._template = conv_templates[template]
        self._tokenizer = tokenizer
        self._has_marks = bool(getattr(config, "mm_use_im_start_end", False))

    def text(self, turn: str, answer: str | None = None) -> str:
        """The prompt: the video's place, the turn, and the answer or the place for it."""
        from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN

        visual = DEFAULT_IMAGE_TOKEN
        if self._has_marks:
            visual = f"{DEFAULT_IM_START_TOKEN}{visual}{DEFAULT_IM_END_TOKEN}"
        conversation = copy.deepcopy(self._template)
        conversation.append_message(conversation.roles[0], f"{visual}\n{turn}")
        conversation.append_message(conversation.roles[1], answer)
        return conversation.get_prompt()

    def ids(self, turn: str, answer: str | None = None) -> list[int]:
        """Token ids of :meth:`text`; the video is one negative id, and what turn and answer spell is text.

        They are the host's own unless the words hold a mark of the template or the host.

        Raises:
            InputError: the tokenizer cannot write a mark that stands in the words as text.
        """
        own = self._marks_in(self._by_host(_QUESTION, _PROBE if answer else None))
        ids = self._by_host(turn, answer)
        if self._marks_in(ids) != own:
            ids = self._by_parts(turn, answer)
        if self._marks_in(ids) != own:
            raise InputError(
                f"the text {turn[:60]!r} contains marks that would be mistaken for the conversation template's own"
            )
        return ids

    def _by_host(self, turn: str, answer: str | None) -> list[int]:
        from llava.constants import IMAGE_TOKEN_INDEX
        from llava.mm_utils import tokenizer_image_token

        return tokenizer_image_token(self.text(turn, answer), self._tokenizer, IMAGE_TOKEN_INDEX)

    def _by_parts(self, turn: str, answer: str | None) -> list[int]:
        """Template and words apart, so that marks are looked for in the template alone."""
        from llava.constants import DEFAULT_IMAGE_TOKEN, IMAGE_TOKEN_INDEX

        probe = f" {_QUESTION} "
        start, _, rest = self.text(probe, _PROBE if answer else None).partition(DEFAULT_IMAGE_TOKEN)
        if probe not in rest:  # the template strips
            turn, probe = turn.strip(), _QUESTION
        lead, _, rest = rest.partition(probe)
        parts: list[str] = [lead, Words(turn)]
        if answer:
            between, _, rest = rest.partition(_PROBE)
            parts += [between, Words(answer)]
        return [
            *self._tokenizer(start)["input_ids"],
            IMAGE_TOKEN_INDEX,
            *encode_prompt(self._tokenizer, [*parts, rest]),
        ]

    def _marks_in(self, ids: list[int]) -> list[int]:
        """The places of images and the special tokens, in their order."""
        special = set(special_tokens(self._tokenizer).values())
        return [number for number in ids if number < 0 or number in special]

    @cached_property
    def ending_tokens(self) -> int:
        """Tokens after an answer that only end the turn."""
        tail = self.text("", _PROBE).rpartition(_PROBE)[2]
        return len(self._tokenizer(tail, add_special_tokens=False)["input_ids"]) if tail else 0

    @property
    def _separator(self) -> str:
        from llava.conversation import SeparatorStyle

        template = self._template
        return (template.sep2 if template.sep_style == SeparatorStyle.TWO else template.sep) or ""

    @cached_property
    def end_ids(self) -> list[int]:
        """The template's separator, if it is one token: it ends an answer, as the model's own end does."""
        ids = self._tokenizer(self._separator, add_special_tokens=False)["input_ids"] if self._separator else []
        return ids if len(ids) == 1 else []

    def stopping(self, own: int | list[int] | None) -> dict[str, Any]:
        """Arguments of ``generate`` that end answers where the template or the model (``own`` ids) ends them."""
        ids = [] if own is None else [own] if isinstance(own, int) else list(own)
        arguments: dict[str, Any] = {"eos_token_id": list(dict.fromkeys([*ids, *self.end_ids])) or None}
        if self._separator.strip() and not self.end_ids:
            arguments.update(stop_strings=[self._separator], tokenizer=self._tokenizer)
        return arguments
