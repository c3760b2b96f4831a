"""transformers' Trainer with soft targets, class weights, and figures of the held-out rows."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from tqdm import tqdm

from tam_plugin.inductor.classifiers import pad_ids
from tam_plugin.inductor.evaluation import score
from tam_plugin.taxonomy import TaskDistribution


class SoftTargetTrainer(transformers.Trainer):
    """Cross-entropy with soft targets; each label's part of it has a weight.

    A row's loss is −Σ_c w_c · t_c · log p_c, a batch's the mean over its rows.

    Args:
        class_weights: ``[L]``.
        **options: as for ``transformers.Trainer``.
    """

    def __init__(self, *, class_weights: Tensor, **options: Any) -> None:
        super().__init__(**options)
        self.class_weights = class_weights
        # The loss is a mean over the batch: accumulated steps are to be averaged, whatever the model's signature says.
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, *_: Any, **__: Any) -> Any:
        logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.float()
        loss = F.cross_entropy(logits, inputs["targets"], weight=self.class_weights.to(logits.device))
        return (loss, {"loss": loss, "logits": logits}) if return_outputs else loss


class Collator:
    """Pads token ids on the right, as the Inductor does, and stacks the rest."""

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        ids_BN, mask_BN = pad_ids([row["input_ids"] for row in rows], self.pad_id)
        return {
            "input_ids": ids_BN,
            "attention_mask": mask_BN.long(),
            "targets": torch.stack([row["targets"] for row in rows]),
            "labels": torch.tensor([row["labels"] for row in rows]),
        }


class Progress(transformers.TrainerCallback):
    """A bar on a terminal's standard error; nothing elsewhere, and never a word on standard output."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.shown: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            done = state.global_step
            self.bar = tqdm(total=state.max_steps, initial=done, disable=None, file=sys.stderr, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if self.bar is not None:
            self.shown |= {k: v for k, v in (logs or {}).items() if k in ("loss", "eval_loss", "eval_macro_f1")}
            self.bar.set_postfix(self.shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def training_arguments(wanted: dict[str, Any]) -> Any:
    """``transformers.TrainingArguments`` of the installed version, which may lack or have renamed one or two."""
    known = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    if "eval_strategy" not in known:
        wanted["evaluation_strategy"] = wanted.pop("eval_strategy")
    if "restore_callback_states_from_checkpoint" not in known:
        del wanted["restore_callback_states_from_checkpoint"]
    return transformers.TrainingArguments(**wanted)


def figures(logits: Tensor, labels: Sequence[int], temperature: float = 1.0) -> dict[str, float]:
    """``accuracy``, ``macro_f1`` and ``ece`` of logits ``[B, 8]`` against task numbers (1-8)."""
    found = [TaskDistribution.from_logits(row) for row in (logits.double() / temperature).tolist()]
    rows: Any = [SimpleNamespace(label=int(label), label2=None) for label in labels]
    all_figures = score(found, rows)
    return {name: all_figures[name] for name in ("accuracy", "macro_f1", "ece")}


def held_out_figures(prediction: Any) -> dict[str, float]:
    """What the Trainer asks for after an evaluation; its labels count from 0."""
    return figures(torch.as_tensor(prediction.predictions), (prediction.label_ids + 1).tolist())


def logits_of(model: Any, ids: Sequence[list[int]], pad_id: int, batch_size: int = 64) -> Tensor:
    """Float32 logits ``[B, L]`` on the CPU, in the order given; rows of like length run together."""
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    parts = []
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            ids_BN, mask_BN = pad_ids([ids[i] for i in order[start : start + batch_size]], pad_id)
            batch = {"input_ids": ids_BN.to(model.device), "attention_mask": mask_BN.long().to(model.device)}
            parts.append(model(**batch).logits.float().cpu())
    return torch.cat(parts)[torch.tensor(order).argsort()]
