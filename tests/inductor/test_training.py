"""Data, grammar, training and evaluation on tiny material."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from tam_plugin.errors import ConfigError, InputError
from tam_plugin.inductor import Inductor
from tam_plugin.inductor.dataset import LabelledQuery, add_noise, cap_per_source, read_queries, written_queries
from tam_plugin.inductor.evaluation import score
from tam_plugin.inductor.fitting import FitOptions, fit_temperature, targets
from tam_plugin.inductor.grammar import Corpus, inflect
from tam_plugin.inductor.split import TrainingOptions, split_rows
from tam_plugin.inductor.storage import load_weights, quantize_rows, save_weights
from tam_plugin.taxonomy import TaskDistribution

TAM = [sys.executable, "-m", "tam_plugin.cli.main"]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.load()


def test_corpus_covers_every_type_without_loose_ends(corpus: Corpus) -> None:
    rng = random.Random(0)
    for label in range(1, 9):
        rows = list(corpus.sample(label, 200, rng))
        assert {row.label for row in rows} == {label}
        assert len({row.question for row in rows}) > 190
        texts = [row.question for row in rows] + [o for row in rows for o in row.options or ()]
        assert not [text for text in texts if set("{}|") & set(text)]
        assert all(row.options is None or len(row.options) >= 1 for row in rows)


def test_every_template_can_be_realised(corpus: Corpus) -> None:
    rng = random.Random(1)
    for group in corpus.groups:
        for template in group.templates:
            text = corpus.realise(template, rng)
            assert text and not set("{}[]|") & set(text), template


def test_same_seed_same_queries(corpus: Corpus) -> None:
    draws = [list(corpus.sample(4, 30, random.Random(seed))) for seed in (3, 3, 4)]
    assert draws[0] == draws[1] != draws[2]


def test_numbered_slots_repeat(corpus: Corpus) -> None:
    text = corpus.realise("{color.1} and {color.1}", random.Random(0))
    assert text.split(" and ")[0] == text.split(" and ")[1]


def test_split_shares_no_template(corpus: Corpus) -> None:
    kept, held = corpus.split(0.2, random.Random(0))
    templates = [
        {(g.label, g.label2, g.options, t) for g in part.groups for t in g.templates} for part in (kept, held, corpus)
    ]
    assert held.num_templates > 100 and not templates[0] & templates[1]
    assert templates[0] | templates[1] == templates[2]


@pytest.mark.parametrize(
    ("verb", "s", "ing", "ed"),
    [
        ("put on", "puts on", "putting on", "put on"),
        ("carry it", "carries it", "carrying it", "carried it"),
        ("push", "pushes", "pushing", "pushed"),
        ("play", "plays", "playing", "played"),
        ("tie", "ties", "tying", "tied"),
        ("take", "takes", "taking", "took"),
        ("peel", "peels", "peeling", "peeled"),
        ("knead", "kneads", "kneading", "kneaded"),
    ],
)
def test_inflection(verb: str, s: str, ing: str, ed: str) -> None:
    assert [inflect(verb, form) for form in ("s", "ing", "ed")] == [s, ing, ed]


def test_a_template_with_an_unknown_slot_is_named(tmp_path: Path) -> None:
    (tmp_path / "lexicon.yaml").write_text("color: [red]\n")
    (tmp_path / "1.yaml").write_text("label: 1\ngroups:\n  - templates: |\n      what is {colour}\n")
    with pytest.raises(ConfigError, match="colour"):
        Corpus.load(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "is empty"),
        ("{", "line 1"),
        ("[1]", "line 1"),
        ('{"question": "Why?"}', "label"),
        ('{"question": "Why?", "label": 9}', "9"),
        ('{"question": " ", "label": 1}', "question"),
        ('{"question": "Why?", "label": 1, "options": "a"}', "options"),
    ],
)
def test_bad_query_files_name_the_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=said):
        read_queries(path)


def test_the_written_corpus_is_large_varied_and_balanced() -> None:
    rows = written_queries()
    words = [frozenset(re.findall(r"\w+", row.question.lower())) for row in rows]
    assert len({(row.question.lower(), row.options) for row in rows}) == len(rows) >= 6000
    counts = Counter(row.label for row in rows)
    assert set(counts) == set(range(1, 9)) and max(counts.values()) < 1.3 * min(counts.values())
    assert len({row.dataset for row in rows}) >= 5 and all(row.label2 != row.label for row in rows)
    # No template with slots: questions that share nearly all their words are rare.
    by_word: dict[str, list[int]] = defaultdict(list)
    close = 0
    for i, mine in enumerate(words):
        rare = sorted(mine, key=lambda word: len(by_word[word]))[:3]
        near = {j for word in rare for j in by_word[word] if len(mine & words[j]) >= 0.85 * len(mine | words[j])}
        close += bool(near)
        for word in mine:
            by_word[word].append(i)
    assert close < 0.01 * len(rows)
    assert sum(row.paraphrase is not None for row in rows) >= 500


def test_held_out_and_left_out_rows_are_not_trained_on() -> None:
    options = TrainingOptions(grammar_per_label=5, leave_out=("home",), held_out=0.2, no_question=10)
    split = split_rows(options, random.Random(4))
    again = split_rows(options, random.Random(4))
    trained, held = ({(r.question, r.options) for r in rows} for rows in (split.train, split.held_written))
    assert not trained & held and split.train == again.train
    assert {r.dataset for r in split.train} & {"home"} == set() and "home" not in {
        r.dataset for r in split.held_written
    }
    english = split_rows(TrainingOptions(grammar_per_label=5, no_question=0, languages=("en",)), random.Random(4))
    assert {row.language for row in english.train} == {"en"} < {row.language for row in split.train}
    written = [row for row in written_queries() if row.dataset != "home"]
    assert len(split.held_written) == int(0.2 * len(written))
    assert len(split.train) == len(written) - len(split.held_written) + 40 + 10


def test_noise_keeps_labels_and_is_capped_by_source() -> None:
    rng = random.Random(0)
    row = LabelledQuery("what color is the boat", 1, 2, ("red", "blue", "green"), dataset="a")
    noisy = [add_noise(row, rng) for _ in range(200)]
    assert {(n.label, n.label2) for n in noisy} == {(1, 2)}
    assert len({n.question for n in noisy}) > 30 and {n.options is None for n in noisy} == {True, False}
    assert len(cap_per_source([row] * 50 + [LabelledQuery("why", 7, dataset="b")] * 3, 10, rng)) == 13


def test_int8_rows_round_within_half_a_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(7, 33) * torch.logspace(-3, 2, 7)[:, None], torch.randn(7)
    save_weights(tmp_path / "w.safetensors", {"a.weight": weight, "a.bias": bias})
    loaded = load_weights(tmp_path / "w.safetensors")
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((loaded["a.weight"] - weight).abs() <= step * 0.5001).all()
    assert torch.equal(loaded["a.bias"], bias)
    assert quantize_rows(torch.zeros(2, 3))[0].eq(0).all()


def test_temperature_recovers_a_known_one() -> None:
    torch.manual_seed(0)
    logits = torch.randn(20000, 8) * 2
    labels = torch.multinomial(logits.softmax(-1), 1)[:, 0]
    assert fit_temperature(logits * 3.0, labels) == pytest.approx(3.0, rel=0.05)


def test_targets_share_the_second_label() -> None:
    options = FitOptions(label2_weight=0.3, label_smoothing=0.08)
    target = targets([LabelledQuery("q", 4, 2), LabelledQuery("q", 1)], options)
    assert target.sum(1).tolist() == pytest.approx([1.0, 1.0])
    assert target[0, 3].item() == pytest.approx(0.7 * 0.92 + 0.01)
    assert target[0, 1].item() == pytest.approx(0.3 * 0.92 + 0.01)
    assert target[1, 0].item() == pytest.approx(0.93)


def test_score_against_hand_worked_figures() -> None:
    def sure(label: int, p: float) -> TaskDistribution:
        rest = (1 - p) / 7
        return TaskDistribution(tuple(p if i == label - 1 else rest for i in range(8)))

    rows = [LabelledQuery("q", 1), LabelledQuery("q", 1), LabelledQuery("q", 2, 1), LabelledQuery("q", 4)]
    figures = score([sure(1, 0.95), sure(2, 0.55), sure(1, 0.95), sure(4, 0.95)], rows)
    assert figures["accuracy"] == 0.5 and figures["accuracy_label2"] == 0.75
    assert figures["recall"][:4] == [0.5, 0.0, None, 1.0]
    assert figures["macro_f1"] == pytest.approx((0.5 + 0.0 + 1.0) / 3)
    assert figures["ece"] == pytest.approx((abs(2 / 3 - 0.95) * 3 + 0.55) / 4)
    assert [(b["count"], b["range"][0]) for b in figures["buckets"]] == [(1, 0.4), (3, 0.8)]


def make_bert(base: Path) -> Path:
    """A tiny random BERT whose tokenizer knows a few words."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "why",
        "where",
        "what",
        "color",
        "order",
        "how",
        "many",
        "?",
        "the",
    ]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    transformers.BertModel(config).save_pretrained(base)
    tokenizer.save(str(base / "tokenizer.json"))
    return base


@pytest.mark.slow
def test_training_from_a_tiny_base_gives_a_loadable_inductor(tmp_path: Path) -> None:
    base, out, queries = tmp_path / "base", tmp_path / "out", tmp_path / "queries.jsonl"
    make_bert(base)
    queries.write_text("\n".join(json.dumps({"question": f"why {i}", "label": 7, "dataset": "t"}) for i in range(40)))
    kept, *others = sorted({row.dataset for row in written_queries()}, key=lambda name: name != "cameras")
    (out / "runs").mkdir(parents=True)
    (out / "runs" / "settings.txt").write_text("another run")
    command = ["inductor", "train", "--embedded", "--base", base, "--out", out, "--data", queries]
    refused = subprocess.run([*TAM, *map(str, command)], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "left of a run with other settings: another run" in refused.stderr
    (out / "runs" / "settings.txt").unlink()
    command += ["--leave-out", *others, "--grammar-per-label", 24]
    numbers = ["--epochs", "2", "--batch-size", "16", "--learning-rate", "2e-3", "--no-question", "20"]
    done = subprocess.run([*TAM, *map(str, command), *numbers], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    written = sum(row.dataset == kept for row in written_queries())
    assert figures["rows"] == 36 + 8 * 24 + written - written // 10 + 20
    assert 0.25 <= figures["temperature"] <= 8
    assert len(read_queries(out / "held_out.jsonl")) == written // 10
    inductor = Inductor.from_pretrained(out)
    assert inductor.temperature == pytest.approx(figures["temperature"], abs=1e-3)
    why, where = (inductor.classify(word).probabilities for word in ("why", "where"))
    assert why.index(max(why)) == 6 and where[6] < why[6] and math.isclose(sum(why), 1, abs_tol=1e-6)
    assert inductor.doubt is not None and 0.85 <= inductor.doubt.max_entropy <= 1

    # The result teaches a copy of itself; a first run without one of the sources raises the temperature.
    taught = tmp_path / "taught"
    again = [*command[:3], "--base", out, "--teacher", out, "--layers", 1, "--pilot", "t", "--data", queries]
    again += ["--out", taught, "--leave-out", *others, "--grammar-per-label", 24, "--seeds", 0]
    done = subprocess.run([*TAM, *map(str, again), *numbers], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["new_sources"] >= 1 and "tam inductor train: pilot, left-out sources" in done.stderr
    assert Inductor.from_pretrained(taught).temperature == pytest.approx(figures["temperature"], abs=1e-3)


def test_a_missing_base_is_one_line(tmp_path: Path) -> None:
    command = [*TAM, "inductor", "train", "--embedded", "--base", "nowhere", "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "nowhere" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()
