"""What SigLIP's pretraining stands for here: an encoder that knows each patch, and a projector that names it.

From random weights nothing of the world is learned in an hour; after some minutes of dense labels (what each patch
shows, its colour, its place, the scene) it is. No question is seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from tam_plugin.eval.taskworld.patch_labels import CLASSES, labelled_frames
from tam_plugin.storage import replace_file

if TYPE_CHECKING:
    from transformers import LlavaOnevisionForConditionalGeneration

CLIPS_PER_STEP = 12
FIRST_SEED = 10**9
RATE = 2e-3
NOTHING_WEIGHT = 0.05
"""Weight of patches that show nothing, of which there are many, for kind and colour."""
SAVE_EVERY = 100

Loss = Callable[[range], torch.Tensor]


class Heads(nn.Module):
    """Linear readings of a patch; used in pretraining alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, count) for name, count in CLASSES.items()})

    def forward(self, features: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Sum of the cross entropies of features ``[B, 144, D]``."""
        loss = features.new_zeros(())
        for name, head in self.heads.items():
            weight = torch.ones_like(labels[name], dtype=features.dtype)
            if name in ("kind", "color"):
                weight = weight.masked_fill(~labels["thing"], NOTHING_WEIGHT)
            each = F.cross_entropy(head(features).flatten(0, 1), labels[name].flatten(), reduction="none")
            loss = loss + (each * weight.flatten()).sum() / weight.sum()
        return loss


def pretrain(
    dense: LlavaOnevisionForConditionalGeneration,
    steps: tuple[int, int],
    seed: int,
    folder: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Train the encoder on patch labels, then projector and word embeddings on naming patches; in place.

    Args:
        dense: a dense LlavaOnevision model with tied embeddings.
        steps: of the two lessons.
        seed: of the clips.
        folder: for the state; a killed run resumes there.
        say: told how far it is.
    """
    device = next(dense.parameters()).device
    tower, projector = dense.model.vision_tower, dense.model.multi_modal_projector
    table = dense.model.language_model.embed_tokens.weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = Heads(tower.config.hidden_size).to(device)
        kept = Heads(table.shape[1]).to(device)  # what the projector must let through besides the names

    def batch(seeds: range) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        frames, labels = labelled_frames(seeds)
        return frames.to(device), {name: label.to(device) for name, label in labels.items()}

    def reading(seeds: range) -> torch.Tensor:
        frames, labels = batch(seeds)
        return heads(tower(frames).last_hidden_state, labels)

    def naming(seeds: range) -> torch.Tensor:
        frames, labels = batch(seeds)
        with torch.no_grad():  # as LLaVA-OneVision reads it, without the encoder's last normalization
            features = tower(frames, output_hidden_states=True).hidden_states[-1]
        projected = projector(features)
        named = labels["names"]
        log_p = (projected @ table.T).log_softmax(-1).gather(2, named.clamp(min=0))
        weight = torch.where(labels["thing"], 1.0, NOTHING_WEIGHT)[..., None] * (named >= 0)
        return -(log_p * weight).sum() / weight.sum() + kept(projected, labels)

    first = FIRST_SEED + seed * 10**6
    _lesson("encoder", reading, nn.ModuleList([tower, heads]), [], steps[0], first, folder, say)
    _lesson(
        "projector",
        naming,
        nn.ModuleList([projector, kept]),
        [table],
        steps[1],
        first + steps[0] * CLIPS_PER_STEP,
        folder,
        say,
    )


def _lesson(
    name: str,
    loss_of: Loss,
    module: nn.Module,
    more: list[nn.Parameter],
    steps: int,
    first_seed: int,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """AdamW with a cosine, from where an earlier run stopped."""
    file = folder / f"{name}.pt"
    parameters = [*module.parameters(), *more]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 50) * (0.505 + 0.495 * math.cos(math.pi * step / max(1, steps)))
    )
    start = 0
    if file.exists():
        state = torch.load(file, weights_only=True, map_location=parameters[0].device)
        start = state["step"]
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(value)
    for step in range(start, steps):
        begin = first_seed + step * CLIPS_PER_STEP
        loss = loss_of(range(begin, begin + CLIPS_PER_STEP))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            say(f"{name}: step {step + 1} of {steps}, loss {loss.item():.3f}")
            state = {"step": step + 1, "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
            with replace_file(file, binary=True) as out:
                torch.save(state | {"parameters": [p.detach() for p in parameters]}, out)
