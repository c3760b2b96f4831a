"""Stage 1 of the paper: a sequence classifier of the eight task types on any Hugging Face base.

The training itself is transformers' Trainer, so that ``accelerate launch``, mixed precision, checkpoints and reporting
are its own. While it runs, ``out/training`` holds its checkpoints; in the end ``out`` holds the best one as an ordinary
checkpoint that :meth:`Inductor.from_pretrained` loads, with the temperature fitted on held-out rows.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.errors import InputError, TamNotice, require
from tam_plugin.inductor.finetuning import folder
from tam_plugin.inductor.finetuning.bases import check_base, load_base
from tam_plugin.inductor.finetuning.options import Stage1Options
from tam_plugin.inductor.finetuning.rows import (
    TASK_LABELS,
    Row,
    check_ids,
    class_weights,
    cut_ids,
    read_rows,
    soft_targets,
    split_rows,
)
from tam_plugin.taxonomy import NUM_TASK_TYPES

if TYPE_CHECKING:
    from torch import Tensor


def train(
    options: Stage1Options, out: str | Path, *, overwrite: bool = False, callbacks: Sequence[Any] = ()
) -> dict[str, Any] | None:
    """Train, keep the best checkpoint, fit the temperature, write the Inductor; go on where a killed run stopped.

    Args:
        options: the run.
        out: folder to write.
        overwrite: whether a finished Inductor, or an unfinished run of other settings, may be replaced.
        callbacks: further ``transformers.TrainerCallback`` objects.

    Returns:
        ``rows``, ``held_out_rows``, ``steps``, ``accuracy``, ``macro_f1``, ``ece`` (at temperature 1),
        ``ece_calibrated``, ``temperature`` and ``seconds`` of this call; None on every process but the first.

    Raises:
        TamError: the data, the base or ``out`` cannot be used; all of it is checked before anything is written.
    """
    started = time.monotonic()
    out = Path(out)
    require("accelerate", needed_for="training an Inductor", extra="train")
    if options.report_to != "none":
        require(options.report_to, needed_for=f"--report-to {options.report_to}")
    _note_lone_process()
    rows, held = _rows(options)
    settings = options.settings(rows, held)
    going_on = folder.unfinished(out, settings, overwrite=overwrite)
    config = check_base(options.base)
    import transformers

    transformers.set_seed(options.seed)
    tokenizer, model = load_base(options.base, config)
    prepare = _Preparation(options, tokenizer, model)
    train_set, held_set = prepare(rows), prepare(held)
    trainer = _trainer(options, out, model, tokenizer.pad_token_id, train_set, held_set, rows, callbacks)
    first = trainer.is_world_process_zero()
    trainer.accelerator.wait_for_everyone()  # all have looked at the folder before the first process changes it
    if first and not going_on:
        folder.begin(out, settings)
    trainer.accelerator.wait_for_everyone()
    checkpoint = folder.last_checkpoint(out) if going_on else None
    trainer.accelerator.wait_for_everyone()
    if first and going_on:
        said = f"goes on from {checkpoint.name}" if checkpoint else "starts anew: it had no checkpoint yet"
        print(f"tam: the run in {str(out)!r} {said}", file=sys.stderr)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    found = None
    if first:
        found = _finish(options, out, trainer.accelerator.unwrap_model(trainer.model), tokenizer, held, held_set)
        found = {"rows": len(rows), "steps": trainer.state.global_step, **found}
        found["seconds"] = round(time.monotonic() - started, 1)
    trainer.accelerator.wait_for_everyone()
    if trainer.args.world_size > 1:
        trainer.accelerator.end_training()
    return found


def _note_lone_process() -> None:
    """Say so when ``accelerate launch --cpu --num_processes N`` started one process: it starts several by MPI alone."""
    several_wanted = "MASTER_ADDR" in os.environ and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    has_rank = any(name == "RANK" or name.startswith(("OMPI_", "PMI_", "MV2_", "MPI_")) for name in os.environ)
    if several_wanted and not has_rank:
        message = (
            "accelerate launch --cpu started one process, not several (it needs MPI for that); accelerate launch "
            "--multi_gpu, with --cpu among the arguments of this command, starts several on CPUs"
        )
        warnings.warn(message, TamNotice, stacklevel=3)


def _rows(options: Stage1Options) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, checked."""
    rows = read_rows(options.data)
    if options.valid:
        held = read_rows(options.valid)
        check_ids(rows + held)
    else:
        rows, held = split_rows(rows, options.held_out, options.seed)
    if not held:
        raise InputError(
            f"{', '.join(options.data)}: no label has two rows, so none can be held out; give more data, or --valid"
        )
    present = {row.label for row in rows}
    missing = [label for number, label in enumerate(TASK_LABELS, 1) if number not in present]
    if missing and int(os.environ.get("RANK", "0")) == 0:
        message = f"the training data have no row of {', '.join(missing)}; the Inductor will not learn to say so"
        warnings.warn(message, TamNotice, stacklevel=3)
    return rows, held


class _Preparation:
    """Rows → what the Trainer reads; inputs are cut in the middle, as :class:`Inductor` cuts them."""

    def __init__(self, options: Stage1Options, tokenizer: Any, model: Any) -> None:
        self.options, self.tokenizer = options, tokenizer
        self.most = min(options.max_tokens, int(getattr(model.config, "max_position_embeddings", options.max_tokens)))

    def __call__(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        flags = {"use_options": self.options.use_options, "use_duration": self.options.use_duration}
        texts = [row.text(**flags) for row in rows]
        ids = cut_ids(self.tokenizer(texts, padding=False, truncation=False)["input_ids"], self.most)
        target = soft_targets(
            rows,
            NUM_TASK_TYPES,
            label2_weight=self.options.label2_weight,
            label_smoothing=self.options.label_smoothing,
        )
        return [
            {"input_ids": i, "targets": t, "labels": row.label - 1} for i, t, row in zip(ids, target, rows, strict=True)
        ]


def _trainer(
    options: Stage1Options,
    out: Path,
    model: Any,
    pad_id: int,
    train_set: list[dict[str, Any]],
    held_set: list[dict[str, Any]],
    rows: Sequence[Row],
    callbacks: Sequence[Any],
) -> Any:
    import torch
    import transformers

    from tam_plugin.inductor.finetuning import trainer as own

    cuda = torch.cuda.is_available() and not options.cpu
    every: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    if options.eval_steps:
        steps = {"eval_steps": options.eval_steps, "save_steps": options.eval_steps}
        every = {"eval_strategy": "steps", "save_strategy": "steps", **steps}
    args = own.training_arguments(
        {
            "output_dir": str(out / folder.RUN_FOLDER),
            "num_train_epochs": options.epochs,
            "per_device_train_batch_size": options.batch_size,
            "per_device_eval_batch_size": 2 * options.batch_size,
            "gradient_accumulation_steps": options.gradient_accumulation,
            "learning_rate": options.learning_rate,
            "weight_decay": options.weight_decay,
            "lr_scheduler_type": "cosine",
            "bf16": cuda and torch.cuda.is_bf16_supported(),
            "use_cpu": options.cpu,
            "seed": options.seed,
            "logging_steps": 50,
            "save_total_limit": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_macro_f1",
            "greater_is_better": True,
            "restore_callback_states_from_checkpoint": True,
            "remove_unused_columns": False,
            "label_names": ["labels"],
            "report_to": [] if options.report_to == "none" else [options.report_to],
            "disable_tqdm": True,
            "dataloader_pin_memory": cuda,
            **every,
        }
    )
    batches = math.ceil(len(rows) / (options.batch_size * args.world_size * max(1, args.n_gpu)))
    steps_in_all = options.epochs * math.ceil(batches / options.gradient_accumulation)
    args.warmup_steps = math.ceil(options.warmup * steps_in_all)
    early = [transformers.EarlyStoppingCallback(options.patience)] if options.patience else []
    trainer = own.SoftTargetTrainer(
        class_weights=torch.tensor(class_weights(rows, NUM_TASK_TYPES, options.class_weights)),
        model=model,
        args=args,
        train_dataset=train_set,
        eval_dataset=held_set,
        data_collator=own.Collator(pad_id),
        compute_metrics=own.held_out_figures,
        callbacks=[*early, own.Progress(), *callbacks],
    )
    trainer.remove_callback(transformers.PrinterCallback)  # standard output is for the result
    return trainer


def _finish(
    options: Stage1Options, out: Path, model: Any, tokenizer: Any, held: Sequence[Row], held_set: list[dict[str, Any]]
) -> dict[str, Any]:
    """Fit the temperature on the held-out rows, write the checkpoint, give the figures."""
    from tam_plugin.inductor.finetuning import trainer as own

    ids, pad_id = [row["input_ids"] for row in held_set], tokenizer.pad_token_id
    logits = own.logits_of(model, ids, pad_id)
    labels = [row.label for row in held]
    temperature = round(_temperature(logits, labels), 4)
    model.config.tam_temperature = temperature
    model.config.tam_use_options = options.use_options
    model.config.tam_use_duration = options.use_duration
    staging = out / folder.RUN_FOLDER / "result"
    model.save_pretrained(staging)
    tokenizer.save_pretrained(staging)
    figures = own.figures(logits, labels)
    found = {
        "held_out_rows": len(held),
        **figures,
        "ece_calibrated": own.figures(logits, labels, temperature)["ece"],
        "temperature": temperature,
    }
    note = {"base": options.base, "options": asdict(options), "figures": found}
    (staging / "training.json").write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
    folder.publish(staging, out)
    return found


def _temperature(logits: Tensor, labels: Sequence[int]) -> float:
    import torch

    from tam_plugin.inductor.fitting import fit_temperature

    return fit_temperature(logits, torch.tensor(labels) - 1)
