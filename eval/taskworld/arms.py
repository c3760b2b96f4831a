"""The arms of the experiment: rows of the paper's tables, trained, or a trained one run with other settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What is trained from the shared start, or how a trained arm is run.

    Attributes:
        name: as in results.
        table: the paper's table.
        row: the paper's row.
        by_task: whether frames and stride follow the question.
        tam: sections of :class:`tam_plugin.TamConfig` that differ from a dense tower and one projector.
        ends: the stage that it is measured after: 1, which trains nothing of the arm; 2; or 3.
        stage2: what the second stage trains, of ``language_model``, ``projector`` and ``tower``.
        data: share of the clips that its stages see; seen more often, so that the steps are as many.
        of: name of the trained arm that is run with other settings; None trains its own.
        against: name of the arm that it is compared with.
        paper_percent: the paper's relative change against that row: of Tab. 3e, 9, 10 and 11 as it says, of the others
            the mean over the table's benchmarks.
    """

    name: str
    table: str
    row: str
    by_task: bool = True
    tam: dict[str, Any] = field(default_factory=dict)
    ends: int = 3
    stage2: tuple[str, ...] = ("language_model",)
    data: float = 1.0
    of: str | None = None
    against: str | None = None
    paper_percent: float | None = None

    @property
    def stage2_name(self) -> str:
        """Names the files of its second stage, which arms that differ only behind it share."""
        parts = ["by_task" if self.by_task else "fixed", *(self.stage2 if self.stage2 != ("language_model",) else ())]
        return ".".join([*parts, *([f"{self.data:.0%}"] if self.data < 1 else []), "stage2"])


DENSE: dict[str, Any] = {"moe": {"enabled": False}, "projector": {"gate": "single"}}


def _tam(moe: dict[str, Any] | None = None, projector: dict[str, Any] | None = None) -> dict[str, Any]:
    """Both mixtures as the paper has them, with other fields."""
    return {"moe": {"enabled": True, **(moe or {})}, "projector": {"gate": "resolution", **(projector or {})}}


MIXTURE = _tam()
_SINGLE, _NO_EXPERTS = {"gate": "single"}, {"enabled": False}

TRAINED = (
    Arm(name="neither", table="3e", row="Baseline", by_task=False, tam=DENSE),
    Arm(name="both", table="3e", row="+ MoE / DFR (TallVA)", tam=MIXTURE, against="neither", paper_percent=12.1),
    Arm(
        name="dfr",
        table="3e",
        row="+ Dynamic Frames Number & Resolution",
        tam=DENSE,
        against="neither",
        paper_percent=2.8,
    ),
    Arm(
        name="moe",
        table="3e",
        row="+ soft MoE-VE (top2 in 4)",
        by_task=False,
        tam=MIXTURE,
        against="neither",
        paper_percent=-2.7,
    ),
    Arm(name="stage 1", table="3b", row="TallVA after stage 1", tam=DENSE, ends=1),
    Arm(name="llm first", table="3b", row="+ train LLM only", tam=DENSE, ends=2, against="stage 1", paper_percent=3.5),
    Arm(
        name="projector first",
        table="3b",
        row="+ train Projector only",
        tam=DENSE,
        ends=2,
        stage2=("projector",),
        against="stage 1",
        paper_percent=-4.1,
    ),
    Arm(
        name="tower and projector first",
        table="3b",
        row="+ train VE and Projector",
        tam=DENSE,
        ends=2,
        stage2=("projector", "tower"),
        against="stage 1",
        paper_percent=-18.3,
    ),
    Arm(
        name="moe, top 1 of 4",
        table="9",
        row="Top1 in 4",
        by_task=False,
        tam=_tam({"top_k": 1}),
        against="neither",
        paper_percent=-3.01,
    ),
    Arm(
        name="moe, top 2 of 8",
        table="9",
        row="Top2 in 8",
        by_task=False,
        tam=_tam({"num_experts": 8}),
        against="neither",
        paper_percent=-5.98,
    ),
    Arm(
        name="both, 10 % of the data",
        table="5a",
        row="TallVA",
        tam=MIXTURE,
        data=0.1,
        against="neither, 10 % of the data",
    ),
    Arm(name="neither, 10 % of the data", table="5a", row="Baseline", by_task=False, tam=DENSE, data=0.1),
    Arm(
        name="both, 30 % of the data",
        table="5a",
        row="TallVA",
        tam=MIXTURE,
        data=0.3,
        against="neither, 30 % of the data",
    ),
    Arm(name="neither, 30 % of the data", table="5a", row="Baseline", by_task=False, tam=DENSE, data=0.3),
    Arm(
        name="experts alone",
        table="3c",
        row="+ soft MoE-VE (top2 in 4)",
        tam=_tam(projector=_SINGLE),
        against="dfr",
        paper_percent=3.0,
    ),
    Arm(
        name="experts alone, top 2 of 8",
        table="3c",
        row="+ soft MoE-VE (top2 in 8)",
        tam=_tam({"num_experts": 8}, _SINGLE),
        against="dfr",
        paper_percent=1.5,
    ),
    Arm(
        name="projectors alone",
        table="3d",
        row="+ hard MoE-Projector, based on resolution",
        tam=_tam(_NO_EXPERTS),
        against="dfr",
        paper_percent=1.1,
    ),
    Arm(
        name="soft projectors, top 2 of 4",
        table="3d",
        row="+ soft MoE-Projector (top2 in 4)",
        tam=_tam(_NO_EXPERTS, {"gate": "soft", "num_experts": 4, "top_k": 2}),
        against="dfr",
        paper_percent=-0.2,
    ),
    Arm(
        name="soft projectors, top 2 of 8",
        table="3d",
        row="+ soft MoE-Projector (top2 in 8)",
        tam=_tam(_NO_EXPERTS, {"gate": "soft", "num_experts": 8, "top_k": 2}),
        against="dfr",
        paper_percent=-0.6,
    ),
)
"""In the order in which they are worth their time. Experts by task type (Tab. 3c) have no arm: training packs questions
of several types behind one video here."""

SWITCHED = (
    Arm(
        name="random experts",
        table="10",
        row="Random Top-2",
        tam=_tam({"router_mode": "random_k"}),
        of="both",
        against="both",
        paper_percent=-9.8,
    ),
    Arm(
        name="lowest experts",
        table="10",
        row="Lowest 2 Experts",
        tam=_tam({"router_mode": "lowest_k"}),
        of="both",
        against="both",
        paper_percent=-12.5,
    ),
    Arm(
        name="random projector",
        table="11",
        row="+Random Experts",
        tam=_tam(projector={"gate": "random"}),
        of="both",
        against="both",
        paper_percent=-3.2,
    ),
    Arm(
        name="swapped projectors",
        table="11",
        row="+Expert Swap",
        tam=_tam(projector={"gate": "swapped"}),
        of="both",
        against="both",
        paper_percent=-13.6,
    ),
    Arm(
        name="fixed budget",
        table="-",
        row="TAM at the baseline's budget",
        by_task=False,
        tam=MIXTURE,
        of="both",
        against="both",
    ),
    Arm(
        name="dfr, not trained",
        table="3a",
        row="+ Dynamic Frames Number & Resolution",
        tam=DENSE,
        of="neither",
        against="neither",
        paper_percent=1.2,
    ),
)
"""Causal controls on the trained mixture (Tab. 10, 11); its accuracy where every question gets the same budget; and the
baseline under budgets that it was not trained for (Tab. 3a)."""


def runs_of(arm: Arm) -> tuple[Arm, ...]:
    """What is measured of a trained arm: the arm, then the switched ones that use its weights."""
    return (arm, *(run for run in SWITCHED if run.of == arm.name))
