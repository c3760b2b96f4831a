"""Tiny models and separable data: a word decides the label."""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tam_plugin.inductor import storage
from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier
from tam_plugin.inductor.finetuning.rows import TASK_LABELS

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


def compact_base(folder: Path) -> Path:
    """A tiny compact checkpoint that knows the eight words."""
    torch.manual_seed(0)
    sizes = EncoderConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, num_labels=8, **SIZES)
    model, tokenizer = SentenceClassifier(sizes), word_tokenizer()
    optimizer, rng = torch.optim.Adam(model.parameters(), lr=1e-2), random.Random(0)
    for _ in range(120):
        labels = [rng.randint(1, 8) for _ in range(16)]
        ids = [tokenizer.encode(question(label, rng)).ids for label in labels]
        rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(i) for i in ids], batch_first=True)
        logits = model(rows, rows != 0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, torch.tensor(labels) - 1).backward()
        optimizer.step()
    folder.mkdir()
    storage.save_weights(folder / storage.WEIGHTS_FILE, model.state_dict())
    tokenizer.save(str(folder / storage.TOKENIZER_FILE))
    config = {"format": storage.FORMAT, **sizes.to_dict(), "id2label": dict(enumerate(TASK_LABELS))}
    config |= {"tam_temperature": 1.5, "tam_use_duration": False}
    (folder / storage.CONFIG_FILE).write_text(json.dumps(config))
    return folder
