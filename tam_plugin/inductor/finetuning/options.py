"""What a run of stage 1 is made of, and by what it is recognised when it goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tam_plugin.inductor.finetuning.bases import DEFAULT_BASE
from tam_plugin.inductor.finetuning.rows import Row


@dataclass(frozen=True, kw_only=True)
class Stage1Options:
    """A run of stage 1.

    Attributes:
        data: JSON-lines files of labelled questions.
        base: folder or hub name of a Hugging Face model.
        valid: files of held-out rows; without them ``held_out`` of each label is taken from the data.
        held_out: that share.
        use_options: whether the input text carries answer options.
        use_duration: whether it carries the video's length class.
        class_weights: ``balanced``, ``sqrt`` or ``none`` (:func:`class_weights`).
        label2_weight: probability mass of a second valid label in the target.
        label_smoothing: mass spread over all labels.
        epochs: passes over the data, at most.
        batch_size: rows of a process and step.
        gradient_accumulation: steps whose gradients are averaged before the weights move.
        learning_rate: peak of the rate; it rises linearly over ``warmup`` of the steps, then falls as a cosine.
        patience: evaluations without a better macro-F1 after which training ends; 0 for never.
        eval_steps: steps between evaluations, each with a checkpoint; 0 for one an epoch.
        max_tokens: longer inputs lose their middle, as when they are classified.
        report_to: ``none``, ``wandb`` or ``tensorboard``.
        cpu: stay on the CPU.
        seed: of the head, the order of the rows and the split.
    """

    data: tuple[str, ...]
    base: str = DEFAULT_BASE
    valid: tuple[str, ...] = ()
    held_out: float = 0.1
    use_options: bool = True
    use_duration: bool = True
    class_weights: str = "balanced"
    label2_weight: float = 0.3
    label_smoothing: float = 0.05
    epochs: int = 3
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float = 5e-5
    weight_decay: float = 0.01
    warmup: float = 0.05
    patience: int = 3
    eval_steps: int = 0
    max_tokens: int = 256
    report_to: str = "none"
    cpu: bool = False
    seed: int = 0

    def settings(self, rows: Sequence[Row], held: Sequence[Row]) -> dict[str, Any]:
        """What decides the result; two runs of the same settings are the same run."""
        digest = hashlib.sha256()
        for row in (*rows, *held):
            digest.update(repr((row.question, row.label, row.label2, row.options, row.duration_s)).encode())
        values = {k: v for k, v in asdict(self).items() if k not in ("data", "valid", "report_to", "cpu")}
        return {**values, "num_rows": len(rows), "num_held_out_rows": len(held), "data_sha256": digest.hexdigest()[:16]}
