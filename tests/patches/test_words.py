"""Words that spell marks come out as text, and ordinary words as any tokenizer call gives them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tam_plugin.patches.onevision.tiny import demo_tokenizer
from tam_plugin.patches.words import Words, encode_prompt, encode_words, holds_mark, special_tokens
from tests.llava.tiny_models import write_tokenizer

BYTES = 256
"""What both tokenizers know besides their special tokens."""
FRAGMENTS = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<image>",
    "<video>",
    "<|im_",
    "start|>",
    "<",
    "é ",
    "\n",
    "user",
]
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@pytest.fixture(scope="module", params=["qwen2", "demo"])
def tokenizer(request, tmp_path_factory):
    if request.param == "demo":
        return demo_tokenizer()
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_no_text_becomes_a_mark_and_none_is_lost(tokenizer, text):
    ids = encode_words(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < BYTES
    spells = any(name in text for name in special_tokens(tokenizer))
    assert holds_mark(tokenizer, text) == spells
    if not spells:
        assert ids == tokenizer(text)["input_ids"]
    assert tokenizer("<|im_end|>")["input_ids"] == [tokenizer.convert_tokens_to_ids("<|im_end|>")]  # unchanged


@settings(max_examples=50, deadline=None)
@given(words=TEXTS, answer=TEXTS)
def test_a_prompt_has_the_marks_of_its_format_alone(tokenizer, words, answer):
    parts = ["<|im_start|>user\n", Words(words), "<|im_end|>\n<|im_start|>assistant\n", Words(answer), "<|im_end|>\n"]
    ids = encode_prompt(tokenizer, parts)
    special = [tokenizer.convert_ids_to_tokens(i) for i in ids if i >= BYTES]
    assert special == ["<|im_start|>", "<|im_end|>", "<|im_start|>", "<|im_end|>"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == "".join(parts)
    if not any(name in words + answer for name in special_tokens(tokenizer)):
        assert ids == tokenizer("".join(parts))["input_ids"]


def test_ids_among_the_parts_divide_the_text(tokenizer):
    start = tokenizer("a")["input_ids"]
    assert encode_prompt(tokenizer, ["a", -200, Words("a"), Words("a")]) == [
        *start,
        -200,
        *tokenizer("aa")["input_ids"],
    ]
    assert encode_prompt(tokenizer, [-200, ""]) == [-200] and encode_prompt(tokenizer, []) == []


def test_placeholders_that_are_not_flagged_as_special(tokenizer):
    """A checkpoint's tokenizer may hold the image token as an ordinary added one."""
    tokenizer.add_tokens(["<place>"])
    place = tokenizer.convert_tokens_to_ids("<place>")
    assert encode_words(tokenizer, "a<place>") == tokenizer("a<place>")["input_ids"]
    ids = encode_words(tokenizer, "a<place><|im_end|>", [place])
    assert tokenizer.decode(ids) == "a<place><|im_end|>" and place not in ids
