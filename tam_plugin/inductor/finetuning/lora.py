"""LoRA on a student's encoder, its head trained in full, and the merge: a small loop for a few thousand rows."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import require
from tam_plugin.inductor.finetuning.rows import Row, soft_targets
from tam_plugin.inductor.finetuning.students import Student

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Settings of an extension.

    Attributes:
        rank: of the low-rank updates.
        alpha: their scale is alpha / rank.
        dropout: on the updates' input, while training.
        epochs: passes over samples and replay (2 in Tab. 12).
        learning_rate: peak of the updates' rate; linear warm-up over a tenth, then linear decay.
        head_learning_rate: the same for the head.
        label2_weight: probability mass of a second valid label in the target.
        label_smoothing: mass spread over all labels.
        keep: share of an old row's target that is what the base says of it (learning without forgetting, Li and Hoiem
            2016); the rest is its label.
        max_tokens: longer training texts lose their middle.
        held_out: share of each label kept from training, for the temperature and the figures.
        device: cpu, cuda, ... or auto.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 5e-4
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.01
    label2_weight: float = 0.3
    label_smoothing: float = 0.05
    keep: float = 0.5
    max_tokens: int = 128
    held_out: float = 0.1
    device: str = "auto"
    seed: int = 0


def row_weights(rows: Sequence[Row], new: int) -> list[float]:
    """Weight of each row in the loss, of mean 1: the new label's rows together weigh what an old label's rows do.

    Samples of a new type are many beside the replay of each old one; unweighted, the student would take them for
    the usual case and give old questions to the new type. Fewer samples than that are not weighed up.
    """
    counts = Counter(row.label for row in rows)
    old = [count for label, count in counts.items() if label != new]
    fair = min(1.0, sum(old) / len(old) / counts[new]) if old and counts[new] else 1.0
    weights = [fair if row.label == new else 1.0 for row in rows]
    mean = sum(weights) / len(weights)
    return [weight / mean for weight in weights]


def remember(student: Student, rows: Sequence[Row], ids: Sequence[list[int]], target: Tensor, keep: float) -> Tensor:
    """Targets ``[B, L]`` in which the untrained student's own opinion has a share, for rows of old labels."""
    new = target.shape[1]
    old = [i for i, row in enumerate(rows) if row.label != new]
    if not keep or not old:
        return target
    student.model.eval()
    opinion = all_logits(student, [ids[i] for i in old])[:, : new - 1].float().softmax(dim=1)
    target = target.clone()
    target[old] *= 1 - keep
    target[old, : new - 1] += keep * opinion.to(target)
    return target


def teach(student: Student, rows: Sequence[Row], ids: Sequence[list[int]], options: LoraOptions) -> int:
    """Train the student's updates and head on rows and their token ids, then merge; returns the steps taken.

    Raises:
        MissingDependencyError: peft is not there.
    """
    import torch

    from tam_plugin.inductor.fitting import length_batches

    peft = require("peft", needed_for="extending an Inductor", extra="train")
    torch.manual_seed(options.seed)
    rng = random.Random(options.seed)
    target = soft_targets(
        rows,
        len(student.columns),
        label2_weight=options.label2_weight,
        label_smoothing=options.label_smoothing,
    )
    target = remember(student, rows, ids, target, options.keep)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=list(student.lora_targets),
    )
    adapted = peft.LoraModel(student.model, config, "default")
    student.head.requires_grad_(True)
    student.model.to(device(options.device)).train()
    steps = options.epochs * math.ceil(len(rows) / options.batch_size)
    optimizer, schedule = _optimizer(student, steps, options)
    weight = torch.tensor(row_weights(rows, len(student.columns)))
    done = 0
    with _bar(steps) as bar:
        for _ in range(options.epochs):
            for chosen in length_batches([len(i) for i in ids], options.batch_size, rng):
                logits = student.logits([ids[i] for i in chosen])
                losses = torch.nn.functional.cross_entropy(logits, target[chosen].to(logits.device), reduction="none")
                loss = (losses * weight[chosen].to(logits.device)).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for p in student.model.parameters() if p.requires_grad], 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                bar.update()
    adapted.merge_and_unload()
    student.model.to("cpu").eval().requires_grad_(False)
    return done


def device(name: str) -> Any:
    """A torch device; ``auto`` takes CUDA where it is."""
    import torch

    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def all_logits(student: Student, ids: Sequence[list[int]], batch_size: int = 64) -> Tensor:
    """Logits ``[B, L]`` without gradients."""
    import torch

    with torch.inference_mode():
        parts = [student.logits(list(ids[i : i + batch_size])) for i in range(0, len(ids), batch_size)]
    return torch.cat(parts)


def _bar(steps: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=steps, disable=None, file=sys.stderr, unit="step")


def _optimizer(student: Student, steps: int, options: LoraOptions) -> tuple[Any, Any]:
    import torch

    head = set(student.head.parameters())
    updates = [p for p in student.model.parameters() if p.requires_grad and p not in head]
    optimizer = torch.optim.AdamW(
        [{"params": updates, "lr": options.learning_rate}, {"params": [*head], "lr": options.head_learning_rate}],
        weight_decay=options.weight_decay,
    )
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))
    )
    return optimizer, schedule
