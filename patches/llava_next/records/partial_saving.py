"""Records that make LoRA and projector-only checkpoints of a TAM model complete, and resume from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tam_plugin.patches.llava_next.records.tower import stored_config
from tam_plugin.patches.record import Patch

TRAINER = "llava.train.llava_trainer:LLaVATrainer"


def _applies(trainer: Any) -> bool:
    from tam_plugin.patches.llava_next.checkpoints.partial_saving import saves_parts_only

    return stored_config(trainer.model.config) is not None and saves_parts_only(trainer)


def _with_checkpoint(original: Callable) -> Callable:
    @functools.wraps(original)
    def _save_checkpoint(self: Any, model: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, model, trial, *args, **kwargs)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if _applies(self):
            from tam_plugin.patches.llava_next.checkpoints.partial_saving import save_non_lora

            save_non_lora(self, str(folder))
        if self.args.should_save and folder.is_dir():
            _keep_inductor(self, folder)
        return result

    return _save_checkpoint


def _keep_inductor(trainer: Any, folder: Path) -> None:
    """Give a ``checkpoint-N`` the Inductor that the run keeps in its output folder."""
    from tam_plugin.inductor.stored import STORED_NAME, store_inductor

    tam, kept = stored_config(trainer.model.config), Path(trainer.args.output_dir) / STORED_NAME
    if tam is not None and tam.inductor == STORED_NAME and kept.is_dir():
        store_inductor(str(kept), folder)


def _at_the_end(original: Callable) -> Callable:
    @functools.wraps(original)
    def save_state(self: Any) -> Any:
        result = original(self)
        if _applies(self):
            from tam_plugin.patches.llava_next.checkpoints.partial_saving import save_non_lora

            save_non_lora(self, self.args.output_dir)
        return result

    return save_state


def _on_resume(original: Callable) -> Callable:
    @functools.wraps(original)
    def train(self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint and _applies(self):
            from transformers.trainer_utils import get_last_checkpoint

            from tam_plugin.patches.llava_next.checkpoints.partial_saving import load_non_lora

            folder = resume_from_checkpoint
            folder = get_last_checkpoint(self.args.output_dir) if folder is True else folder
            if folder is not None:
                load_non_lora(self.model, folder)
        return original(self, resume_from_checkpoint, *args, **kwargs)

    return train


RECORDS = (
    Patch(
        name="saving.checkpoint",
        target=f"{TRAINER}._save_checkpoint",
        reason="a checkpoint of a TAM model holds its Inductor; a LoRA or projector-only one, all visual weights too",
        wrap=_with_checkpoint,
        signatures=(("self", "model", "trial", "metrics"), ("self", "model", "trial")),
    ),
    Patch(
        name="saving.end",
        target=f"{TRAINER}.save_state",
        reason="what a LoRA or projector-only run of a TAM model leaves at its end can be loaded",
        wrap=_at_the_end,
        signatures=(("self",),),
    ),
    Patch(
        name="saving.resume",
        target=f"{TRAINER}.train",
        reason="a resumed LoRA run of a TAM model gets back what is not LoRA",
        wrap=_on_resume,
        signatures=(
            ("self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval", "kwargs"),
            ("self", "resume_from_checkpoint", "trial", "ignore_keys_for_eval"),
        ),
    ),
)
