"""The arms of the experiment: rows of the paper's tables, trained, or a trained one run with other settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is trained from the shared baseline, or how a trained arm is run.

    Attributes:
        name: as in results.
        table: the paper's table.
        row: the paper's row.
        by_task: whether frames and stride follow the question.
        tam: sections of :class:`tam_plugin.TamConfig` that differ from a dense tower and one projector.
        of: name of the trained arm that is run with other settings; None trains its own.
    """

    name: str
    table: str
    row: str
    by_task: bool = True
    tam: dict[str, Any] = field(default_factory=dict)
    of: str | None = None


DENSE: dict[str, Any] = {"moe": {"enabled": False}, "projector": {"gate": "single"}}
MIXTURE: dict[str, Any] = {"moe": {"enabled": True}, "projector": {"gate": "resolution"}}


def _mixture(moe: dict[str, Any] | None = None, projector: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"moe": {**MIXTURE["moe"], **(moe or {})}, "projector": {**MIXTURE["projector"], **(projector or {})}}


TRAINED = (
    Arm(name="neither", table="3e", row="baseline", by_task=False, tam=DENSE),
    Arm(name="dfr", table="3e", row="DFR", tam=DENSE),
    Arm(name="moe", table="3e", row="MoE", by_task=False, tam=MIXTURE),
    Arm(name="both", table="3e", row="DFR + MoE", tam=MIXTURE),
)
"""Tab. 3e: what frames by task and what mixtures give, alone and together."""

SWITCHED = (
    Arm(name="random experts", table="10", row="random top-2", tam=_mixture({"router_mode": "random_k"}), of="both"),
    Arm(name="lowest experts", table="10", row="lowest two", tam=_mixture({"router_mode": "lowest_k"}), of="both"),
    Arm(name="random projector", table="11", row="random", tam=_mixture(projector={"gate": "random"}), of="both"),
    Arm(name="swapped projectors", table="11", row="swapped", tam=_mixture(projector={"gate": "swapped"}), of="both"),
    Arm(name="fixed budget", table="-", row="TAM at the baseline's budget", by_task=False, tam=MIXTURE, of="both"),
)
"""Causal controls on the trained mixture (Tab. 10, 11), and its accuracy where every question gets the same budget."""
