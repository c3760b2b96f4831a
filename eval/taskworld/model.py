"""TaskWorld's models: LLaVA-OneVision with a small SigLIP, a small Qwen2 and a byte-level tokenizer of its words."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

from tam_plugin.eval.taskworld.questions import BALL, CORNERS, DOOR, FLAG, NUMBERS, ORDINALS, phrases
from tam_plugin.eval.taskworld.render import SIZE
from tam_plugin.eval.taskworld.sprites import CAUSES, COLOR_NAMES, DIGITS, FEELINGS, SCENE_NAMES, SHAPES, TILE, WEATHERS
from tam_plugin.eval.taskworld.world import PLACES
from tam_plugin.patches.onevision.tiny import SPECIAL_TOKENS, demo_config

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerBase

WORDS = 704
"""Tokens of the vocabulary, at most: 256 bytes, and merges that make a token of every word of the training split."""
VISION = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": TILE,
}
LANGUAGE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 640,
    "initializer_range": 0.08,  # 1 / sqrt(width): with the usual 0.02 a model as narrow as this learns later
    "tie_word_embeddings": True,
}


def corpus() -> list[str]:
    """What the tokenizer learns its words from: training wordings and every answer."""
    slots = {"shape": SHAPES, "color": COLOR_NAMES, "thing": PLACES, "nth": ORDINALS}
    lines = ["user \n", "assistant\n"] * 100  # so that each is one token
    for entry in phrases().values():
        for wording in entry["train"]:
            name = next((name for name in slots if f"{{{name}}}" in wording), None)
            lines += [wording.format(**{name: value}) for value in slots[name]] if name else [wording]
    for entry in phrases().values():
        lines.append(" " + entry["subject"].partition(" {")[0])
    answers = (*COLOR_NAMES, *NUMBERS, *DOOR, *FLAG, *BALL, *FEELINGS, *CORNERS, *SCENE_NAMES)
    answers += (*WEATHERS, *CAUSES, *DIGITS)
    return lines + [line for answer in answers for line in (answer, " " + answer)] * 10


@functools.cache
def tokenizer() -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer, trained in place on :func:`corpus`; the same every time."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    made.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def dense_model(seed: int) -> LlavaOnevisionForConditionalGeneration:
    """The dense model with seeded random weights."""
    from transformers import LlavaOnevisionForConditionalGeneration

    config = demo_config(tokenizer(), **VISION)
    language: Any = config.text_config
    for name, value in LANGUAGE.items():
        setattr(language, name, value)
    language.layer_types = ["full_attention"] * LANGUAGE["num_hidden_layers"]
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaOnevisionForConditionalGeneration(config)
