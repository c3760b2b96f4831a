"""The progress of a fine-tuning run on disk: killed at any moment, the same command resumes within its last steps.

Kept are the trained weights, the optimizer's state, the running average, and the state of the random numbers at the
start of the epoch, from which its noise and the order of its batches are drawn again. Frozen weights are not kept.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.storage import replace_file, replace_path

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS_FILE = "progress.safetensors"
STATE_FILE = "progress.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Progress:
    """How far a run has come.

    Attributes:
        step: optimizer steps that are done.
        epoch_start: the step at which the epoch of the next step began.
        averaged: how many steps' weights the running average is of.
    """

    def __init__(self, rng: random.Random) -> None:
        self.step = self.epoch_start = self.averaged = 0
        self._rng_state = rng.getstate()
        self._average: dict[str, Tensor] = {}
        self._moments: dict[str, Tensor] = {}

    @classmethod
    def resume(cls, folder: Path | None, model: nn.Module, rng: random.Random) -> Progress:
        """What ``folder`` holds of a run, with ``model`` and ``rng`` brought to that state; else a fresh start."""
        import torch

        progress = cls(rng)
        if folder is None or not (folder / STATE_FILE).is_file():
            return progress
        from safetensors.torch import load_file

        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        stored = load_file(str(folder / state["file"]))
        weights = model.state_dict()
        for name, value in stored.items():
            kind, _, parameter = name.partition(":")
            if kind == "weight":
                weights[parameter].copy_(value)
            elif kind == "average":
                progress._average[parameter] = value
            elif kind == "torch":
                torch.set_rng_state(value)
            else:
                progress._moments[name] = value
        progress.step, progress.epoch_start, progress.averaged = state["step"], state["epoch_start"], state["averaged"]
        version, numbers, gauss = state["random"]
        progress._rng_state = (version, tuple(numbers), gauss)
        rng.setstate(progress._rng_state)
        return progress

    def begin_epoch(self, step: int, rng: random.Random) -> None:
        """Note that an epoch begins: its noise and order follow from the present state of ``rng``."""
        self.epoch_start, self._rng_state = step, rng.getstate()

    def add_to_average(self, model: nn.Module) -> None:
        """Take the trained weights into the running average."""
        self.averaged += 1
        for name, value in _trained(model).items():
            if name not in self._average:
                self._average[name] = value.detach().clone()
            else:
                self._average[name].lerp_(value.detach(), 1 / self.averaged)

    def load_average(self, model: nn.Module) -> None:
        """Give the model the average, if there is one."""
        for name, value in _trained(model).items():
            if name in self._average:
                value.data.copy_(self._average[name])

    def load_optimizer(self, model: nn.Module, optimizer: Any) -> None:
        """Bring a new optimizer to the state that was kept."""
        for name, parameter in _trained(model).items():
            moments = {m: self._moments[f"{m}:{name}"] for m in _MOMENTS if f"{m}:{name}" in self._moments}
            if moments:
                optimizer.state[parameter] = moments
        self._moments = {}

    def keep(self, folder: Path, step: int, model: nn.Module, optimizer: Any) -> None:
        """Write the progress; a kill leaves the one before."""
        import torch
        from safetensors.torch import save_file

        self.step = step
        trained = _trained(model)
        stored = {f"weight:{name}": value.detach() for name, value in trained.items()}
        stored |= {f"average:{name}": value for name, value in self._average.items()}
        for name, parameter in trained.items():
            stored |= {f"{m}:{name}": optimizer.state[parameter][m] for m in _MOMENTS}
        stored["torch:rng"] = torch.get_rng_state()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{step}-{WEIGHTS_FILE}"
        with replace_path(folder / name) as part:
            save_file({key: value.contiguous() for key, value in stored.items()}, str(part))
        note = {"file": name, "step": step, "epoch_start": self.epoch_start, "averaged": self.averaged}
        with replace_file(folder / STATE_FILE) as file:
            json.dump({**note, "random": self._rng_state}, file)
        for old in folder.glob(f"*-{WEIGHTS_FILE}"):
            if old.name != name:
                old.unlink()


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}
