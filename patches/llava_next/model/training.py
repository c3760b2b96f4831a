"""What a TAM model needs of the host's Trainer before it trains."""

from __future__ import annotations

import os
import sys
from typing import Any

import torch

from tam_plugin.inductor.stored import STORED_NAME, store_inductor
from tam_plugin.patches.llava_next.command_line.arguments import DEFAULT_MAX_BAD_SAMPLES
from tam_plugin.patches.llava_next.data.bad_samples import FILE_NAME, BadSamples
from tam_plugin.patches.llava_next.data.budgets import BudgetPlanner, PlanLookup
from tam_plugin.patches.llava_next.data.dataset import TamDataset
from tam_plugin.patches.llava_next.data.plans import attach_plans, checkpoint_folder, without_listed
from tam_plugin.patches.llava_next.model.model_config import tam_config_of, token_layout_of
from tam_plugin.patches.llava_next.model.trainable import arrange
from tam_plugin.training.zero3 import ZERO_3, cast_unpartitioned, set_leaf_modules, zero_stage

COMPILED = (
    "tam: note: --torch_compile compiles the language model; the visual side runs as it is, since frames and strides "
    "change from sample to sample"
)
_HOSTS = ("_get_item", "list_data_dict", "data_args", "tokenizer")


def is_host_dataset(dataset: Any) -> bool:
    """Whether ``dataset`` is a ``LazySupervisedDataset``, also one defined in a script that runs as ``__main__``."""
    return all(hasattr(dataset, name) for name in _HOSTS) and not isinstance(dataset, TamDataset)


def tam_dataset(
    dataset: Any, model: Any, *, output_dir: str | None = None, plan_lookup: PlanLookup | None = None
) -> TamDataset:
    """The host's dataset with frames and resolution by each sample's question, or by ``--tam_plans``.

    Samples that ``--tam_skip`` lists are left out.

    ``--video_fps``, ``--frames_upbound`` and ``--force_sample`` have no effect: the budget decides.

    Args:
        dataset: a ``LazySupervisedDataset``.
        model: the TAM model that it trains.
        output_dir: folder for the list of bad samples; None keeps it in memory.
        plan_lookup: precomputed budgets by sample id.

    Raises:
        ConfigError: policy and model do not go together, or the plans were made for something else.
        InputError: ``--tam_plans`` holds no plans, or ``--tam_skip`` is no list.
    """
    config = tam_config_of(model)
    limits = (dataset.tokenizer.model_max_length, getattr(model.config, "tokenizer_model_max_length", None))
    layout = token_layout_of(model, context_tokens=min(int(limit) for limit in limits if limit))
    planner = BudgetPlanner(config, layout, plan_lookup=plan_lookup)
    tam_args: Any = getattr(dataset.data_args, "tam_args", None)
    if getattr(tam_args, "tam_skip", None) is not None:
        dataset = without_listed(dataset, tam_args.tam_skip)
    folder = getattr(tam_args, "tam_plans", None)
    if folder is not None:
        attach_plans(planner, folder, config, dataset, model=checkpoint_folder(model))
    bad_samples = BadSamples(
        len(dataset),
        getattr(tam_args, "tam_max_bad_samples", DEFAULT_MAX_BAD_SAMPLES),
        None if output_dir is None else os.path.join(output_dir, FILE_NAME),
    )
    return TamDataset(dataset, planner, config.instruction, bad_samples)


def carry_inductor(config: Any, output_dir: str, *, writes: bool) -> None:
    """Make an Inductor that is not the embedded one a part of what the run saves, now that the planner knows it.

    Args:
        config: the model's configuration; its ``tam.inductor`` becomes a folder of the checkpoint.
        output_dir: the run's.
        writes: whether this process writes its files.
    """
    name = config.tam.get("inductor")
    if name is None:
        return
    if writes:
        store_inductor(name, output_dir)
    config.tam = {**config.tam, "inductor": STORED_NAME}


def prepare_trainer(trainer: Any) -> None:
    """Give the Trainer of a TAM model its dataset, and the model's configuration what it is told of videos.

    Raises:
        ConfigError: see :func:`tam_dataset` and :func:`tam_plugin.patches.llava_next.model.trainable.arrange`.
    """
    arrange(trainer)
    if getattr(trainer.args, "torch_compile", False) and trainer.args.process_index == 0:
        print(COMPILED, file=sys.stderr)
    if zero_stage(trainer.args.deepspeed) == ZERO_3:
        if trainer.args.bf16 or trainer.args.fp16:
            cast_unpartitioned(trainer.model, torch.bfloat16 if trainer.args.bf16 else torch.float16)
        set_leaf_modules(trainer.model)
    if not is_host_dataset(trainer.train_dataset):
        return
    model = trainer.model
    dataset = tam_dataset(trainer.train_dataset, model, output_dir=trainer.args.output_dir)
    whole = len(trainer.train_dataset)
    if trainer.args.process_index == 0 and len(dataset) < whole:
        print(f"tam: {whole - len(dataset)} of {whole} training samples are left out by --tam_skip", flush=True)
    if dataset.instruction.time:
        model.config.add_time_instruction = True
    if trainer.args.process_index == 0:
        dataset.bad_samples.start()
    carry_inductor(model.config, trainer.args.output_dir, writes=trainer.args.process_index == 0)
    trainer.train_dataset = dataset
