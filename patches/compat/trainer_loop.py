"""The host's Trainer overrides that do not run: its training loop, its accelerator, its saving and resuming."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import divides_before_backward, parameters, unbound_globals
from tam_plugin.patches.record import Patch

MODULE = "llava.train.llava_trainer"


def _loop_reads_unknown_names(module: ModuleType) -> bool:
    loop = vars(module.LLaVATrainer).get("_inner_training_loop")
    return loop is not None and bool(unbound_globals(loop, module))


def _loop(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def inner_training_loop(self: Any, *args: Any, **more: Any) -> Any:
        """transformers' loop, except in the host's zeroth-order mode, which has none but its own."""
        if getattr(self, "trainer_mode", "regular") == "zo":
            return original(self, *args, **more)
        from transformers import Trainer

        return Trainer._inner_training_loop(self, *args, **more)

    return inner_training_loop


def _accelerator_refuses(module: ModuleType) -> bool:
    from transformers import TrainingArguments

    asked = "dispatch_batches"
    return asked not in parameters(module.Accelerator.__init__) or not hasattr(TrainingArguments, asked)


def _create_accelerator(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def create_accelerator_and_postprocess(self: Any) -> Any:
        """transformers' own; with the host's division of the loss by the accelerator where nobody else divides it."""
        from transformers import Trainer

        Trainer.create_accelerator_and_postprocess(self)
        if self.accelerator.gradient_accumulation_steps == 1 and not divides_before_backward(Trainer.training_step):
            self.accelerator.gradient_accumulation_steps = self.args.gradient_accumulation_steps

    return create_accelerator_and_postprocess


def _save_takes_no_metrics(module: ModuleType) -> bool:
    return "metrics" not in parameters(module.Trainer._save_checkpoint)


def _save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save_checkpoint(self: Any, model: Any, trial: Any, metrics: Any = None) -> Any:
        return original(self, model, trial)

    return save_checkpoint


def _resume_reads_numpy_unasked(module: ModuleType) -> bool:
    """Whether the state of numpy's generator is read back without being allowed to ``torch.load``."""
    import torch

    code = module.Trainer._load_rng_state.__code__
    allowed = {"safe_globals", "add_safe_globals"} & set(code.co_names)
    return not allowed and hasattr(torch.serialization, "safe_globals")


def _load_rng_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_rng_state(self: Any, checkpoint: Any) -> Any:
        import numpy as np
        import torch

        arrays = np.arange(1, dtype=np.uint32)
        allowed: list[Any] = [arrays.__reduce__()[0], np.ndarray, np.dtype, type(arrays.dtype)]
        with torch.serialization.safe_globals(allowed):
            return original(self, checkpoint)

    return load_rng_state


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="trainer_loop.inner_training_loop",
        target=f"{MODULE}:LLaVATrainer._inner_training_loop",
        reason="the host's copy of the training loop reads names that its module never imports: every run fails",
        wrap=_loop,
        group="compat",
        signatures=(
            ("self", "batch_size", "args", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"),
            ("self", "args", "kwargs"),
        ),
        needed=_loop_reads_unknown_names,
    ),
    Patch(
        name="trainer_loop.create_accelerator",
        target=f"{MODULE}:LLaVATrainer.create_accelerator_and_postprocess",
        reason="the host passes dispatch_batches, which the Accelerator or the arguments no longer have",
        wrap=_create_accelerator,
        group="compat",
        signatures=(("self",),),
        needed=_accelerator_refuses,
    ),
    Patch(
        name="trainer_loop.save_checkpoint",
        target="transformers.trainer:Trainer._save_checkpoint",
        reason="the host's trainer passes metrics, which are no longer taken",
        wrap=_save_checkpoint,
        group="compat",
        signatures=(("self", "model", "trial"),),
        needed=_save_takes_no_metrics,
    ),
    Patch(
        name="trainer_loop.load_rng_state",
        target="transformers.trainer:Trainer._load_rng_state",
        reason="resuming reads numpy's generator state, which torch.load refuses unless it is allowed",
        wrap=_load_rng_state,
        group="compat",
        signatures=(("self", "checkpoint"),),
        needed=_resume_reads_numpy_unasked,
    ),
)
