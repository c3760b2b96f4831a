"""The rows: what each sets of policy, instruction, experts and projectors, under the paper's own name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tam_plugin.budget import BASELINE_FRAMES, BASELINE_STRIDE
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError

BASELINE_POLICY = f"fixed:{BASELINE_FRAMES}:{BASELINE_STRIDE}"
STAGE2_SCRIPT = "scripts/stage2_llm_first.sh"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One row of one table.

    Attributes:
        name: what it is called by here.
        table: of the paper.
        row: the paper's words.
        dfr: dynamic frames and resolution: the checkpoint's policy; False takes the fixed baseline.
        instruction: time and task instruction in the prompt.
        moe: fields of ``MoeConfig``; what is not named is the checkpoint's.
        projector: fields of ``ProjectorConfig``, likewise.
        training: the setting of the training script that makes the row's weights; None where no training differs.
    """

    name: str
    table: str
    row: str
    dfr: bool
    instruction: bool
    moe: Mapping[str, Any] = field(default_factory=dict)
    projector: Mapping[str, Any] = field(default_factory=dict)
    training: str | None = None

    @property
    def policy(self) -> str | None:
        """The row's policy in the words of ``--model_args``."""
        return None if self.dfr else BASELINE_POLICY

    @property
    def draws(self) -> bool:
        """Whether it draws at random."""
        return self.moe.get("router_mode") == "random_k" or self.projector.get("gate") == "random"

    def tam(self, base: TamConfig) -> TamConfig:
        """``base`` with this row's settings."""
        instruction = {"time": self.instruction, "task": self.instruction}
        return base.replace(moe=dict(self.moe), projector=dict(self.projector), instruction=instruction)

    def settings(self) -> dict[str, Any]:
        """Plain values that tell it from other rows, whatever its name."""
        return {
            "policy": self.policy or "dynamic",
            "instruction": self.instruction,
            "moe": dict(self.moe),
            "projector": dict(self.projector),
            **({"training": self.training} if self.training else {}),
        }


def find(name: str) -> Ablation:
    """The row of that name.

    Raises:
        ConfigError: there is none; the message lists those that are.
    """
    if name not in ROWS:
        raise ConfigError(f"ablation {name!r}: expected one of {', '.join(ROWS)}")
    return ROWS[name]


_DENSE, _SINGLE = {"enabled": False}, {"gate": "single"}
_BY_RESOLUTION, _OWN = {"gate": "resolution"}, {"enabled": True, "router_mode": "top_k"}


def _soft(top_k: int, num_experts: int) -> dict[str, Any]:
    return {"enabled": True, "num_experts": num_experts, "top_k": top_k, "router_mode": "top_k"}


def _soft_projector(num_experts: int) -> dict[str, Any]:
    return {"gate": "soft", "num_experts": num_experts, "top_k": 2}


_ALL, _NONE = (True, True), (False, False)
# name: (the paper's words, (DFR, instruction), experts, projectors, training)
_TABLES: dict[str, dict[str, tuple[Any, ...]]] = {
    "3a": {
        "none": ("Baseline (no training)", _NONE, _DENSE, _SINGLE),
        "dfr": ("+ Dynamic Frames Number & Resolution", (True, False), _DENSE, _SINGLE),
        "instruction": ("+ Time/Task Instruction in Prompt", (False, True), _DENSE, _SINGLE),
        "both": ("+ combination of the above two", _ALL, _DENSE, _SINGLE),
    },
    "3b": {
        "stage1": ("TallVA after stage 1", _ALL, _DENSE, _SINGLE),
        "llm": ("+ train LLM only", _ALL, _DENSE, _SINGLE, "llm_first"),
        "projector": ("+ train Projector only", _ALL, _DENSE, _SINGLE, "projector_first"),
        "tower_projector": ("+ train VE and Projector", _ALL, _DENSE, _SINGLE, "tower_and_projector_first"),
    },
    "3c": {
        "stage2": ("TallVA after stage 2 (single Projector)", _ALL, _DENSE, _SINGLE),
        "soft_2of4": ("+ soft MoE-VE (top2 in 4)", _ALL, _soft(2, 4), _SINGLE),
        "hard_task": (
            "+ hard MoE-VE, based on task type",
            _ALL,
            {"enabled": True, "top_k": 1, "router_mode": "by_task"},
            _SINGLE,
        ),
        "soft_2of8": ("+ soft MoE-VE (top2 in 8)", _ALL, _soft(2, 8), _SINGLE),
    },
    "3d": {
        "stage2": ("TallVA after stage 2 (single VE)", _ALL, _DENSE, _SINGLE),
        "soft_2of4": ("+ soft MoE-Projector (top2 in 4)", _ALL, _DENSE, _soft_projector(4)),
        "soft_2of8": ("+ soft MoE-Projector (top2 in 8)", _ALL, _DENSE, _soft_projector(8)),
        "hard_resolution": ("+ hard MoE-Projector, based on resolution", _ALL, _DENSE, _BY_RESOLUTION),
    },
    # Its DFR row has the figures of Tab. 3a's combination, its MoE row those of Tab. 9, its last those of TallVA.
    "3e": {
        "none": ("Baseline", _NONE, _DENSE, _SINGLE),
        "moe": ("+ soft MoE-VE (top2 in 4)", _NONE, _soft(2, 4), _SINGLE),
        "dfr": ("+ Dynamic Frames Number & Resolution (DFR)", _ALL, _DENSE, _SINGLE),
        "both": ("+ MoE / DFR (TallVA)", _ALL, _soft(2, 4), _BY_RESOLUTION),
    },
    "9": {
        "none": ("Baseline", _NONE, _DENSE, _SINGLE),
        "top2of8": ("Top2 in 8", _NONE, _soft(2, 8), _SINGLE),
        "top2of4": ("Top2 in 4", _NONE, _soft(2, 4), _SINGLE),
        "top1of4": ("Top1 in 4", _NONE, _soft(1, 4), _SINGLE),
    },
    "10": {
        "normal": ("Normal TAM", _ALL, {**_OWN, "top_k": 2}, _BY_RESOLUTION),
        "random": ("Random Top-2", _ALL, {"enabled": True, "top_k": 2, "router_mode": "random_k"}, _BY_RESOLUTION),
        "lowest": ("Lowest 2 Experts", _ALL, {"enabled": True, "top_k": 2, "router_mode": "lowest_k"}, _BY_RESOLUTION),
    },
    "11": {
        "normal": ("Normal TAM", _ALL, _OWN, _BY_RESOLUTION),
        "random": ("+Random Experts", _ALL, _OWN, {"gate": "random"}),
        "swap": ("+Expert Swap", _ALL, _OWN, {"gate": "swapped"}),
    },
}


def _row(table: str, name: str, words: str, on: tuple[bool, bool], moe: Any, projector: Any, order: Any = None):
    return Ablation(
        name=f"tab{table}_{name}",
        table=f"Tab. {table}",
        row=words,
        dfr=on[0],
        instruction=on[1],
        moe=moe,
        projector=projector,
        training=f"ORDER={order} {STAGE2_SCRIPT}" if order else None,
    )


ROWS: dict[str, Ablation] = {
    row.name: row
    for table, rows in _TABLES.items()
    for name, values in rows.items()
    for row in [_row(table, name, *values)]
}
"""Every row by its name, in the paper's order."""
