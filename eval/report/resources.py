"""The parts of a report on what was spent: budgets, operations, experts, and training's losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tam_plugin.eval.report import accuracy, budget_map, figures, routing
from tam_plugin.eval.report.costs import Cost, cost_of, policy_of, subject_of
from tam_plugin.eval.report.document import Block, Figure, Heading, Items, Paragraph, Table
from tam_plugin.eval.report.names import BUDGETS, HEATMAP, LOAD, LOSSES, NO_LOG, OPERATIONS, decided_label, in_order
from tam_plugin.eval.report.runs import Run
from tam_plugin.taxonomy import NUM_TASK_TYPES
from tam_plugin.training.curves import draw_curves


def budgets(run: Run, folder: Path, model: str | None, preset: str | None) -> list[Block]:
    """Frames and stride over the video's length."""
    blocks: list[Block] = [Heading("Budgets")]
    if run.log is None:
        return [*blocks, Paragraph(NO_LOG.format(run.name))]
    records = [r for r in run.first_records().values() if r.get("frames") and decided_label(r)]
    if not records:
        return [*blocks, Paragraph("Not shown: no row of the log has frames and a task type.")]
    policy = policy_of(run, subject_of(run, model, preset))
    reason = policy if isinstance(policy, str) else None
    rows = []
    labels = in_order(str(decided_label(r)) for r in records)
    for label in labels:
        own = [r for r in records if decided_label(r) == label]
        strides = ", ".join(f"{s}: {sum(r['stride'] == s for r in own)}" for s in sorted({r["stride"] for r in own}))
        frames = [r["frames"] for r in own]
        span = f"{min(frames)} / {sum(frames) / len(frames):.1f} / {max(frames)}" if own else "-"
        rows.append([label, str(len(own)), span, strides or "-"])
    budget_map.draw_budget_map(folder / BUDGETS, records, None if isinstance(policy, str) else policy)
    drawn = (
        f"The policy's curve is not drawn: {reason}."
        if reason
        else (
            "Curves are the policy's for a question that the Inductor is sure of, without text; a sample lies beside "
            "them where its video has fewer frames, the Inductor was unsure or the text took room."
        )
    )
    if len(labels) > NUM_TASK_TYPES and reason is None:
        drawn += " A task type beyond the eight has no curve: its rule is in the Inductor's folder, not in the policy."
    heads = ["task type", "samples", "frames: least / mean / most", "samples by stride"]
    return [*blocks, Table(heads, rows), Paragraph(drawn), Figure(BUDGETS, "Frames and stride over the video's length")]


def operations(runs: Sequence[Run], folder: Path, model: str | None, preset: str | None) -> list[Block]:
    """Accuracy over FLOPs (as Tab. 5c), one point per run."""
    blocks: list[Block] = [Heading("Accuracy and FLOPs (Tab. 5c)")]
    rows, missing, points = [], [], {}
    for run in runs:
        subject = subject_of(run, model, preset)
        cost: Cost | str = subject if isinstance(subject, str) else cost_of(run, subject)
        mean = accuracy.mean_over_tasks(run)
        if isinstance(cost, str):
            missing.append(cost)
            continue
        shown = "-" if mean is None else f"{mean:.4f}"
        values = [str(cost.requests), f"{cost.frames:.1f}", f"{cost.visual_tokens:.1f}", f"{cost.flops:.4e}"]
        rows.append([run.name, cost.model, *values, shown])
        if mean is None:
            missing.append(f"{run.name}: no sample holds a score of its own")
        else:
            points[run.name] = (cost.flops, mean)
    heads = ["run", "counted as", "requests", "frames", "visual tokens", "FLOPs", "accuracy, mean over tasks"]
    if rows:
        text = "Means over the requests that were computed; operations are analytic (tam flops), of frames, stride and "
        blocks += [Table(heads, rows), Paragraph(f"{text}tokens in the sample log.")]
    if points:
        figures.points(folder / OPERATIONS, points)
        blocks.append(Figure(OPERATIONS, "Accuracy over FLOPs, one point per run"))
    return [*blocks, *([Items([f"Not shown: {reason}" for reason in missing])] if missing else [])]


def routing_of(run: Run, folder: Path) -> list[Block]:
    """Routing and expert load (Fig. 7 and 12b)."""
    blocks: list[Block] = [Heading("Routing (Fig. 7) and expert load (Fig. 12b)")]
    if not run.routing:
        text = (
            f"Not shown: no routing log in the folder of {run.name}; evaluate with routing=FILE.jsonl in --model_args."
        )
        return [*blocks, Paragraph(text)]
    sums = routing.sum_counts(run.routing, run.name)
    counts = np.sum(list(sums.values()), axis=0)
    load, even = counts / counts.sum(axis=1, keepdims=True), routing.balance(counts)
    heads = ["layer", *(f"expert {number + 1}" for number in range(counts.shape[1])), "E·Σ f²"]
    rows = [
        [str(n + 1), *(f"{share:.3f}" for share in layer), f"{value:.3f}"]
        for n, (layer, value) in enumerate(zip(load, even, strict=True))
    ]
    routing.draw_heatmap(folder / HEATMAP, sums)
    routing.draw_balance(folder / LOAD, sums)
    logged = "" if run.log is None else f" of {sum(bool(r.get('frames')) for r in run.log)} that were computed"
    return [
        *blocks,
        Paragraph(f"{len(run.routing)} requests{logged} have counts: {counts[0].sum():.0f} assignments per layer."),
        Figure(HEATMAP, "Share of each expert by layer, task type and length of the video"),
        Paragraph("Share of each expert over all requests; E·Σ f² is 1 where all take alike, E where one takes all."),
        Table(heads, rows),
        Figure(LOAD, "Share of each expert by layer, and its balance"),
    ]


def losses(training: Sequence[tuple[str, str | Path]], folder: Path) -> list[Block]:
    """Loss curves (Fig. 12a), if a trainer's state is given."""
    blocks: list[Block] = [Heading("Loss (Fig. 12a)")]
    if not training:
        return [*blocks, Paragraph("Not shown: no trainer_state.json; name training runs by --training NAME=DIR.")]
    draw_curves(training, folder / LOSSES)
    return [*blocks, Figure(LOSSES, f"Loss over steps: {', '.join(name for name, _ in training)}")]
