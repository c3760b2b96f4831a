"""Other checkpoints: any Hugging Face sequence classifier with the labels, and the compact format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import Inductor
from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier
from tam_plugin.inductor.labels import map_labels
from tam_plugin.inductor.model import DEFAULT_FOLDER
from tam_plugin.taxonomy import TaskType

QUERIES = ["What color is it?", "Why did the man leave the room so early in the morning?", "Where?"]
LABELS = [task.label for task in TaskType]


def make_llama(folder: Path, labels: list[str] | None = None, num_labels: int = 8, **config: object) -> Path:
    """Save a tiny random Llama classifier and a character tokenizer."""
    torch.manual_seed(0)
    vocabulary = {"<pad>": 0, "<unk>": 1, **{chr(c): c - 30 for c in range(32, 127)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    names = labels or [f"LABEL_{i}" for i in range(num_labels)]
    model = transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(
            vocab_size=100,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=256,
            pad_token_id=0,
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            initializer_range=0.5,
            **config,
        )
    )
    model.save_pretrained(folder)
    wrapped = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    wrapped.save_pretrained(folder)
    return folder


def direct_logits(folder: Path, text: str) -> torch.Tensor:
    """Logits of one text from transformers itself."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).logits[0].double()


def test_hugging_face_checkpoint_gives_the_softmax_of_its_own_logits(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "plain")
    results = Inductor.from_pretrained(folder).classify_batch(QUERIES, [12.0, None, 500.0], batch_size=3)
    tails = (" ; length: short", "", " ; length: long")
    for query, tail, result in zip(QUERIES, tails, results, strict=True):
        expected = direct_logits(folder, query + tail).softmax(-1)
        assert result.probabilities == pytest.approx(expected.tolist(), abs=1e-5)
    assert len({result.task for result in results} | {max(r.probabilities) for r in results}) > 1


def test_labels_are_mapped_by_text_and_extra_ones_kept_apart(tmp_path: Path) -> None:
    names = [*reversed(LABELS), "very-long-video"]
    folder = make_llama(tmp_path / "nine", labels=names, tam_temperature=2.0)
    inductor = Inductor.from_pretrained(str(folder))
    assert inductor.extra_labels == ("very-long-video",) and inductor.temperature == 2.0
    expected = (direct_logits(folder, QUERIES[0])[:8].flip(0) / 2.0).softmax(-1)
    assert inductor.classify(QUERIES[0]).probabilities == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("names", "columns", "extra"),
    [
        (LABELS, (0, 1, 2, 3, 4, 5, 6, 7), ()),
        ([str(i) for i in range(1, 9)], (0, 1, 2, 3, 4, 5, 6, 7), ()),
        (list("abcdefgh"), (0, 1, 2, 3, 4, 5, 6, 7), ()),
        ([f"LABEL_{i}" for i in range(9)], (0, 1, 2, 3, 4, 5, 6, 7), ("LABEL_8",)),
        (["other", *(task.name for task in TaskType)], (1, 2, 3, 4, 5, 6, 7, 8), ("other",)),
    ],
)
def test_label_order(names: list[str], columns: tuple[int, ...], extra: tuple[str, ...]) -> None:
    found = map_labels({str(i): name for i, name in enumerate(names)}, where="test")
    assert (found.columns, found.extra) == (columns, extra)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a", "b", "c"], "found 3: a, b, c"),
        ([*LABELS[:7], "other"], "OCR and Cross-modal Alignment"),
        (list("abcdefghi"), "no label for"),
        ([*LABELS, LABELS[0]], "both mean"),
        ([], "found 0"),
    ],
)
def test_labels_that_do_not_fit(names: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        map_labels(dict(enumerate(names)), where="test")


def test_three_labels_are_refused(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "three", num_labels=3)
    with pytest.raises(ConfigError, match="at least 8 labels, found 3") as caught:
        Inductor.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_base_model_without_a_head_is_refused(tmp_path: Path) -> None:
    folder = make_llama(tmp_path / "base")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model.model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"id2label": {str(i): f"LABEL_{i}" for i in range(8)}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"weights are missing: score\.weight"):
        Inductor.from_pretrained(folder)


def test_paths_that_hold_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    (tmp_path / "empty").mkdir()
    for name in ("missing", "file.txt", "broken", "list", "empty"):
        with pytest.raises(InputError, match=name) as caught:
            Inductor.from_pretrained(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="empty"):
        Inductor.from_pretrained("  ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tam_temperature", 0),
        ("tam_use_options", "yes"),
        ("hidden_size", None),
        ("num_attention_heads", 7),
        ("num_labels", 9),
    ],
)
def test_a_broken_configuration_names_the_field(tmp_path: Path, field: str, value: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_FOLDER, folder)
    config = json.loads((folder / "config.json").read_text())
    config[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=field):
        Inductor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_truncated_files_are_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(DEFAULT_FOLDER, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    with pytest.raises(InputError, match=name):
        Inductor.from_pretrained(folder)


def test_encoder_equals_transformers_bert() -> None:
    torch.manual_seed(0)
    sizes = EncoderConfig(
        vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, num_labels=8
    )
    config = transformers.BertConfig(**{k: v for k, v in sizes.to_dict().items() if k != "num_labels"})
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()
    own = SentenceClassifier(sizes).eval()
    own.load_bert(bert.state_dict())
    ids = torch.randint(0, 60, (3, 9))
    mask = torch.arange(9)[None, :] < torch.tensor([9, 4, 1])[:, None]
    with torch.no_grad():
        expected = bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        torch.testing.assert_close(own.encode(ids, mask)[mask], expected[mask], atol=1e-5, rtol=1e-5)
        pooled = torch.stack([row[m].mean(0) for row, m in zip(expected, mask, strict=True)])
        torch.testing.assert_close(own(ids, mask), own.head(pooled), atol=1e-5, rtol=1e-5)
