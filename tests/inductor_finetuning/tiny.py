"""Tiny models and separable data: a word decides the label."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("color", "running", "mood", "order", "left", "topic", "why", "sign", "endless")
"""The word of each label; the ninth is that of the extension."""
FILLERS = ("the", "man", "dog", "car", "in", "video", "is", "what", "show", "me")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = {w: i for i, w in enumerate((*SPECIAL, *WORDS, *FILLERS, "?", ";", ":", "length", "short", "options"))}


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def make_base(folder: Path, kind: str, *, labels: list[str] | None = None, pad: bool = True) -> Path:
    """A random Llama or BERT; with ``labels`` a classifier, else a plain base."""
    torch.manual_seed(0)
    named = {"id2label": dict(enumerate(labels)), "label2id": {n: i for i, n in enumerate(labels)}} if labels else {}
    common = {
        "vocab_size": len(VOCABULARY),
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        **SIZES,
        **named,
    }
    if kind == "llama":
        config = transformers.LlamaConfig(num_key_value_heads=1, bos_token_id=2, eos_token_id=3, **common)
        cls = transformers.LlamaForSequenceClassification if labels else transformers.LlamaForCausalLM
    else:
        config = transformers.BertConfig(**common)
        cls = transformers.BertForSequenceClassification if labels else transformers.BertForMaskedLM
    cls(config).save_pretrained(folder)
    special = {"pad_token": "[PAD]"} if pad else {"eos_token": "[SEP]"}
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=word_tokenizer(), unk_token="[UNK]", **special)
    wrapped.save_pretrained(folder)
    return folder


def question(label: int, rng: random.Random) -> str:
    words = rng.sample(FILLERS, rng.randint(2, 5))
    words.insert(rng.randrange(len(words) + 1), WORDS[label - 1])
    return " ".join(words)


def write_data(path: Path, labels, per_label: int, seed: int = 0) -> Path:
    """JSON lines of ``per_label`` questions of each label; a mapping gives a label's name in the file."""
    rng = random.Random(seed)
    named = labels if isinstance(labels, dict) else {label: label for label in labels}
    rows = [
        {"id": f"{path.stem}-{label}-{i}", "question": question(label, rng), "label": name}
        for label, name in named.items()
        for i in range(per_label)
    ]
    rng.shuffle(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
