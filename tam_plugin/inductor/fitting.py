"""Fitting a sentence classifier: soft targets, batches of like length, the loop, the temperature."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.dataset import NO_QUESTION, LabelledQuery
from tam_plugin.inductor.progress import Progress
from tam_plugin.taxonomy import NUM_TASK_TYPES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tam_plugin.inductor.encoder import SentenceClassifier


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Settings of the optimisation.

    Attributes:
        epochs: passes over the data.
        learning_rate: peak of the encoder's rate; linear warm-up over a tenth, then linear decay.
        head_learning_rate: the same for the head.
        label2_weight: probability mass of a second valid label in the target.
        label_smoothing: mass spread over all labels.
        max_tokens: longer training texts are cut.
        token_masking: share of word pieces that the encoder sees as ``[MASK]`` while training.
        train_words: whether word vectors are trained; frozen, they keep unseen words near those of like meaning.
        average_from: the weights that are kept are the average over the steps after this share of the run.
    """

    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 5e-5
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label2_weight: float = 0.3
    label_smoothing: float = 0.05
    max_tokens: int = 96
    token_masking: float = 0.06
    train_words: bool = False
    average_from: float = 0.5


def targets(rows: Sequence[LabelledQuery], options: FitOptions) -> Tensor:
    """Soft targets ``[B, 8]``: the label, its second valid label's share, and smoothing; without a label all alike."""
    import torch

    target = torch.full((len(rows), NUM_TASK_TYPES), options.label_smoothing / NUM_TASK_TYPES)
    for i, row in enumerate(rows):
        if row.label == NO_QUESTION:
            target[i] = 1 / NUM_TASK_TYPES
            continue
        share = options.label2_weight if row.label2 else 0.0
        target[i, row.label - 1] += (1 - share) * (1 - options.label_smoothing)
        if row.label2:
            target[i, row.label2 - 1] += share * (1 - options.label_smoothing)
    return target


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature that minimises the negative log-likelihood of ``labels`` ``[B]`` under ``logits`` ``[B, L]``."""
    import torch

    grid = torch.logspace(math.log10(0.25), math.log10(8.0), 400, dtype=torch.float64)
    losses = [torch.nn.functional.cross_entropy(logits.double() / t, labels) for t in grid]
    return float(grid[int(torch.stack(losses).argmin())])


def fit(
    model: SentenceClassifier,
    draw: Callable[[], tuple[list[list[int]], Tensor]],
    options: FitOptions,
    rng: random.Random,
    folder: Path | None = None,
) -> None:
    """Train in place; the model ends with the average of its weights over the later steps.

    Args:
        model: the classifier.
        draw: gives the token ids and soft targets ``[rows, L]`` of one epoch, with fresh noise from ``rng``; always as
            many rows.
        options: settings.
        rng: noise, and the order of the batches.
        folder: where progress is kept every :data:`KEEP_STEPS` steps, and resumed from; None keeps none.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model.word_embeddings.requires_grad_(options.train_words)
    progress = Progress.resume(folder, model, rng)
    ids, target = draw()
    steps = options.epochs * math.ceil(len(ids) / options.batch_size)
    optimizer, schedule = _optimizer(model, steps, options, progress)
    bfloat16 = has_bfloat16()
    # The flash kernel's bfloat16 backward is several times slower on a CPU than plain matrix products.
    kernels = [SDPBackend.MATH] if bfloat16 else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
    model.train()
    step, running = progress.step, 0.0
    while step < steps:
        batches = length_batches([len(i) for i in ids], options.batch_size, rng)
        for chosen in batches[step - progress.epoch_start :]:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16), sdpa_kernel(kernels):
                logits = model(*pad_ids([ids[i] for i in chosen], pad_id=0))
            loss = torch.nn.functional.cross_entropy(logits.float(), target[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step > options.average_from * steps:
                progress.add_to_average(model)
            running = loss.item() if not running else 0.98 * running + 0.02 * loss.item()
            _report(step, steps, step // max(1, len(batches)), running)
            if folder is not None and step % KEEP_STEPS == 0:
                progress.keep(folder, step, model, optimizer)
        if step < steps:
            progress.begin_epoch(step, rng)
            ids, target = draw()
    progress.load_average(model)
    model.eval()


KEEP_STEPS = 100
"""Steps between two notes of a run's progress on disk."""


def _report(step: int, steps: int, epochs: int, loss: float) -> None:
    """One line on a terminal that is written over, a line every 50 steps elsewhere."""
    terminal = sys.stderr.isatty()
    if terminal or step % 50 == 0 or step == steps:
        start, end = ("\r", "") if terminal else ("", "\n")
        line = f"{start}epoch {epochs + 1}, step {step}/{steps}, loss {loss:.3f}"
        print(line, end=end, file=sys.stderr, flush=True)


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices by instructions of its own; without, float32 is far faster."""
    import torch

    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return bool(supported and supported())


def _optimizer(model: nn.Module, steps: int, options: FitOptions, progress: Progress):
    """AdamW and its schedule, as far as ``progress`` has come."""
    import torch

    head = [p for name, p in model.named_parameters() if name.startswith("head.")]
    body = [p for name, p in model.named_parameters() if not name.startswith("head.") and p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": body, "lr": options.learning_rate}, {"params": head, "lr": options.head_learning_rate}],
        weight_decay=options.weight_decay,
        fused=True,
    )
    progress.load_optimizer(model, optimizer)
    warmup = max(1, steps // 10)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup))),
        last_epoch=progress.step - 1,
    )
    return optimizer, schedule


def mask_tokens(ids: list[list[int]], mask_id: int | None, share: float, rng: random.Random) -> list[list[int]]:
    """Replace a share of the word pieces between the two special tokens by ``[MASK]``, where the tokenizer has it."""
    if mask_id is None or not share:
        return ids
    masked = [[mask_id if rng.random() < share else i for i in row[1:-1]] for row in ids]
    return [[row[0], *inner, row[-1]] for row, inner in zip(ids, masked, strict=True)]


def length_batches(lengths: Sequence[int], batch_size: int, rng: random.Random) -> list[list[int]]:
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
