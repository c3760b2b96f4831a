"""The tables: Tab. 2b and 2c at default budgets, Tab. 13 over budget scales, and every task type at every length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tam_plugin.budget import BASELINE_FRAMES, BASELINE_STRIDE, Policy, VisualBudget
from tam_plugin.checkpoint.figures import policies
from tam_plugin.config import TamConfig
from tam_plugin.eval.flops import paper
from tam_plugin.eval.flops.subjects import Subject, from_preset
from tam_plugin.flops import ModelShape, count_flops
from tam_plugin.taxonomy import TaskDistribution, TaskType

TOP_KS, OF_EXPERTS = (1, 2, 4), 4
SCALES = (0.5, 1.0, 2.0)

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What is counted of one question; see :func:`tam_plugin.flops.count_flops`."""

    text_tokens: int = 128
    new_tokens: int = 1
    attention: str = "full"
    logits: str = "last"


def table_2b(subject: Subject, duration_s: float, conventions: Conventions) -> list[Row]:
    """Model against model: the fixed baseline, TAM over the eight task types, and TAM at the baseline's budget."""
    policy, fixed = policies(subject.layout, subject.tam)
    at_baseline = fixed.budget(None, duration_s)
    base = _row(subject.name, subject.model.dense(), [at_baseline], conventions)
    tam = _row(f"{subject.tam_name}, eight task types", subject.model, _by_task(policy, duration_s), conventions)
    same = _row(f"{subject.tam_name} at {BASELINE_FRAMES}:{BASELINE_STRIDE}", subject.model, [at_baseline], conventions)
    published = _published(subject, paper.TABLE_2B["LLaVA-Video-7B"], paper.TABLE_2B["TallVA-A7B"], None)
    return _beside([base, tam, same], published, duration_s)


def table_2c(subject: Subject, duration_s: float, conventions: Conventions) -> list[Row]:
    """Top-k of four experts at default budgets; ratios are to k = 1."""
    policy, _ = policies(subject.layout, subject.tam)
    budgets = _by_task(policy, duration_s)
    rows = [
        {**_row(f"top-{k} in {OF_EXPERTS}", subject.model.with_experts(OF_EXPERTS, k), budgets, conventions), "k": k}
        for k in TOP_KS
    ]
    return _beside(rows, _published(subject, *paper.TABLE_2C.values()), duration_s)


def table_13(subject: Subject, duration_s: float, conventions: Conventions) -> list[Row]:
    """Half, once and twice the budget for both models; ratios are to the baseline's default."""
    rows: list[Row] = []
    published: list[float | None] = []
    dense, default = subject.model.dense(), paper.TABLE_13_DEFAULT
    for scale in SCALES:
        policy, fixed = policies(subject.layout, subject.tam)
        scaled = policy.scaled(scale)
        baseline = fixed.scaled(scale).budget(None, duration_s)
        rows.append(_row(f"{subject.name} × {scale:g}", dense, [baseline], conventions))
        rows.append(_row(f"{subject.tam_name} × {scale:g}", subject.model, _by_task(scaled, duration_s), conventions))
        at_default = (paper.TABLE_13_BASELINE[default], paper.TABLE_13_TALLVA[default])
        published += at_default if scale == 1 else (None, None)
    reference = rows[2 * SCALES.index(1.0)]["total_flops"]
    return _beside(rows, _published(subject, *published), duration_s, reference, paper.TABLE_13_BASELINE[default])


def table_tasks(subject: Subject, durations_s: Sequence[float], conventions: Conventions) -> list[Row]:
    """Every task type at every length; the paper publishes nothing of this kind."""
    policy, fixed = policies(subject.layout, subject.tam)
    rows = []
    for duration_s in durations_s:
        base = _row("fixed baseline", subject.model.dense(), [fixed.budget(None, duration_s)], conventions)
        group = [{**base, "pool_stride": BASELINE_STRIDE}]
        for task, budget in zip(TaskType, _by_task(policy, duration_s), strict=True):
            group.append({**_row(task.label, subject.model, [budget], conventions), "pool_stride": budget.pool_stride})
        rows += [{**r, "duration_s": duration_s, "ratio": r["total_flops"] / base["total_flops"]} for r in group]
    return rows


def _by_task(policy: Policy, duration_s: float) -> list[VisualBudget]:
    return [policy.budget(TaskDistribution.one_hot(task), duration_s) for task in TaskType]


def _row(name: str, model: ModelShape, budgets: Sequence[VisualBudget], conventions: Conventions) -> Row:
    """Means over ``budgets``; whole numbers stay whole where there is one budget."""
    counted = [count_flops(model, budget, **asdict(conventions)) for budget in budgets]
    parts = {f"{part}_flops": _mean([asdict(flops)[part] for flops in counted]) for part in asdict(counted[0])}
    return {
        "name": name,
        "num_frames": _mean([budget.num_frames for budget in budgets]),
        "visual_tokens": _mean([budget.visual_tokens for budget in budgets]),
        **parts,
        "total_flops": _mean([flops.total for flops in counted]),
    }


def _mean(values: Sequence[int]) -> int | float:
    return values[0] if len(values) == 1 else sum(values) / len(values)


def _published(subject: Subject, *figures: float | None) -> list[float | None]:
    """The paper's figures, if the model is the one they are of."""
    own = from_preset("llava-video-7b", TamConfig())
    same = subject.model == own.model and policies(subject.layout, subject.tam)[0].to_dict() == (
        policies(own.layout, own.tam)[0].to_dict()
    )
    return list(figures) if same else [None] * len(figures)


def _beside(
    rows: list[Row],
    published: Sequence[float | None],
    duration_s: float,
    reference: float | None = None,
    paper_reference: float | None = None,
) -> list[Row]:
    """Rows with ratios to the first (or ``reference``), and the paper's figure and ratio beside them."""
    reference = reference or rows[0]["total_flops"]
    paper_reference = paper_reference or published[0]
    return [
        {
            "duration_s": duration_s,
            **row,
            "ratio": row["total_flops"] / reference,
            "paper_flops": figure,
            "paper_ratio": figure / paper_reference if figure and paper_reference else None,
            "ours_of_paper": row["total_flops"] / figure if figure else None,
        }
        for row, figure in zip(rows, published, strict=True)
    ]
