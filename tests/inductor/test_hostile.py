"""Inductors that strangers made: each is refused in one line, in bounded time and memory."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tam_plugin.inductor.model import DEFAULT_FOLDER

from ..hostile import is_refusal, limited_many


def compact(folder: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_FOLDER, folder))


def hugging_face(folder: Path) -> Path:
    """A tiny Llama classifier, as transformers saves it."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<pad>": 0, "<unk>": 1, **{chr(c): c - 30 for c in range(32, 127)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.LlamaConfig(vocab_size=100, pad_token_id=0, num_labels=8, **sizes)
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>").save_pretrained(folder)
    return folder


def edited(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def weights(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def tokens(folder: Path, change) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    change(values)
    (folder / "tokenizer.json").write_text(json.dumps(values))


def pipe(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


FAR = {"id": "<s>", "ids": [10**6], "tokens": ["<s>"]}
BLOWN_UP = {"type": "Replace", "pattern": {"String": " "}, "content": "x" * 10**6}
COMPACT = [
    (lambda f: edited(f, num_hidden_layers=10**9), "num_hidden_layers = 1000000000"),
    (lambda f: edited(f, num_hidden_layers=500), "do not fit the sizes"),
    (lambda f: edited(f, vocab_size=8_000_000), "do not fit the sizes"),
    (lambda f: edited(f, hidden_size=384.0), "hidden_size"),
    (lambda f: edited(f, layer_norm_eps="1"), "layer_norm_eps"),
    (lambda f: edited(f, max_position_embeddings=-1), "max_position_embeddings"),
    (lambda f: edited(f, id2label={str(n): "x" for n in range(10**5)}), "id2label"),
    (lambda f: edited(f, id2label=[1, 2]), "id2label"),
    (lambda f: edited(f, id2label={"a": "b"}), "id2label"),
    (lambda f: edited(f, id2label={str(n): 7 for n in range(8)}), "id2label"),
    (lambda f: edited(f, id2label={str(n + 1): "x" for n in range(8)}), "id2label"),
    (lambda f: edited(f, tam_temperature=1e-320), ""),
    (lambda f: edited(f, tam_extensions=[{"label": 7}]), "label"),
    (lambda f: edited(f, tam_extensions={"a": 1}), "tam_extensions"),
    (lambda f: weights(f, lambda t: t.update({"head.weight.scale": torch.ones(3)})), "scales"),
    (lambda f: weights(f, lambda t: t.pop("head.bias")), "head.bias"),
    (lambda f: weights(f, lambda t: t.update({"head.bias": torch.full((8,), float("nan"))})), ""),
    (lambda f: tokens(f, lambda v: v["post_processor"]["special_tokens"].update({"<s>": FAR})), "its tokenizer makes"),
    (lambda f: tokens(f, lambda v: v.update(normalizer=BLOWN_UP)), "longer than any"),
    (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    (lambda f: (f / "model.safetensors").write_bytes((1 << 40).to_bytes(8, "little")), "model.safetensors"),
    (lambda f: pipe(f, "config.json"), "not a regular file"),
    (lambda f: pipe(f, "tokenizer.json"), "not a regular file"),
    (lambda f: pipe(f, "model.safetensors"), "not a regular file"),
]  # fmt: skip
HUGGING_FACE = [
    (lambda f: edited(f, num_hidden_layers=10**9), "num_hidden_layers = 1000000000"),
    (lambda f: edited(f, num_hidden_layers=400), "weights are missing"),
    (lambda f: edited(f, vocab_size=8_000_000), "parameters, the weights hold"),
    (lambda f: edited(f, hidden_size=60_000), "parameters, the weights hold"),
    (lambda f: edited(f, num_labels=10**9), "num_labels = 1000000000"),
    (lambda f: edited(f, id2label={str(n): "x" for n in range(10**5)}), "labels"),
    (lambda f: edited(f, model_type="gpt2", n_positions=10**7, n_layer=10**6), "n_layer"),
    (lambda f: edited(f, model_type="no such type"), ""),
    (lambda f: edited(f, model_type=7), ""),
    (lambda f: edited(f, rope_scaling=[1]), ""),
    (lambda f: edited(f, _attn_implementation="stranger/kernels"), "names code on a hub"),
    (lambda f: edited(f, auto_map={"AutoConfig": "stranger/model--code.Config"}, model_type="stranger"), ""),
    (lambda f: (f / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}'), "holds adapter_config"),
    (lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../y"}}'), "weight_map"),
    (lambda f: weights(f, lambda t: t.pop("score.weight")), "score.weight"),
    (lambda f: pipe(f, "tokenizer_config.json"), "not a regular file"),
    (lambda f: pipe(f, "model.safetensors"), "not a regular file"),
]


@pytest.mark.slow
def test_each_is_refused(tmp_path, sample_clip):
    cases, wanted = [], []
    for make, spoils in ((compact, COMPACT), (hugging_face, HUGGING_FACE)):
        good = make(tmp_path / make.__name__)
        for number, (spoil, words) in enumerate(spoils):
            folder = Path(shutil.copytree(good, tmp_path / f"{make.__name__}{number}"))
            spoil(folder)
            cases.append(["plan", sample_clip, "--query", "what color is it?", "--inductor", folder])
            wanted.append((folder.name, words))
        cases.append(["plan", sample_clip, "--query", "what color is it?", "--inductor", good])
        wanted.append((None, ""))
    found = list(zip(wanted, limited_many(cases), strict=True))
    assert all(code == 0 for (name, _), (code, _, _) in found if name is None), found
    wrong = [(name, result) for (name, words), result in found if name and not is_refusal(result, words)]
    assert not wrong, "\n".join(f"{name}: {code} {err[-400:]}" for name, (code, _, err) in wrong)
