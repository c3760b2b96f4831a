"""All tables of one model as plain values, and in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tam_plugin.eval.flops import paper
from tam_plugin.eval.flops.subjects import Subject
from tam_plugin.eval.flops.tables import Conventions, Row, table_2b, table_2c, table_13, table_tasks
from tam_plugin.flops import ModelShape, count_parameters

DURATIONS_S = (15.0, 60.0, 180.0, 600.0)
TITLES = {
    "2b": "Tab. 2b: model against model at default budgets",
    "2c": "Tab. 2c: top-k of 4 experts at default budgets, TAM over the eight task types",
    "13": "Tab. 13: half, once and twice the budget (frames, and the visual tokens that may be taken)",
    "tasks": "By task type and length",
}


def report(
    subject: Subject, durations_s: Sequence[float] = DURATIONS_S, conventions: Conventions | None = None
) -> dict[str, Any]:
    """Every table of a model.

    Args:
        subject: the model.
        durations_s: lengths of the video.
        conventions: what is counted.

    Raises:
        TamError: a duration that no video has, or a count below what can be.
    """
    conventions = conventions or Conventions()
    tables: dict[str, list[Row]] = {
        "2b": [row for s in durations_s for row in table_2b(subject, s, conventions)],
        "2c": [row for s in durations_s for row in table_2c(subject, s, conventions)],
        "13": [row for s in durations_s for row in table_13(subject, s, conventions)],
        "tasks": table_tasks(subject, durations_s, conventions),
    }
    encoder = subject.model.encoder
    return {
        "model": subject.layout.where,
        "names": {"dense": subject.name, "tam": subject.tam_name},
        "experts": encoder.num_experts,
        "top_k": encoder.top_k,
        "pool_order": subject.tam.projector.pool_order,
        "conventions": asdict(conventions),
        "parameters": {
            "dense": count_parameters(subject.model.dense()),
            "tam": count_parameters(subject.model),
        },
        "tables": tables,
        "notes": [*_notes(subject, tables), *subject.layout.notes],
    }


def _notes(subject: Subject, tables: dict[str, list[Row]]) -> list[str]:
    rows = tables["2b"]
    pooling = max(row["pooling_flops"] / row["total_flops"] for row in rows)
    notes = [
        "counted: every matrix product and the patch convolution, as torch.utils.flop_counter has them (2·m·k·n). Left "
        f"out: biases, norms, activations, softmax, and pooling, which would add at most {pooling:.2e} of the total. "
        "The Inductor runs besides: about 2 · its parameters per token of the question",
        f"parameters without embedding and output layer, as mixtures are named: {_billions(subject.model)}",
    ]
    if rows[0]["paper_flops"]:
        last = rows[-1]["duration_s"]
        ours = [row for row in rows if row["duration_s"] == last]
        by_k = {row["k"]: row["total_flops"] for row in tables["2c"] if row["duration_s"] == last}
        notes += paper.notes(last, ours[0]["total_flops"], ours[1]["total_flops"], by_k)
    return notes


def _billions(model: ModelShape) -> str:
    counts = count_parameters(model)["without_embeddings"]
    return f"{counts['total'] / 1e9:.1f}B, of which {counts['activated'] / 1e9:.1f}B are activated"


def describe(values: dict[str, Any]) -> str:
    """The tables in human-readable form."""
    asked, names = values["conventions"], values["names"]
    logits = {"last": "the last token", "all": "all tokens"}[asked["logits"]]
    lines = [
        f"{values['model']}: {names['dense']} and {names['tam']}, {values['top_k']} of {values['experts']} experts, "
        f"pooling {values['pool_order'].replace('_', ' ')}",
        f"one question: the video, {asked['text_tokens']} tokens of text, {asked['new_tokens']} new; "
        f"{asked['attention']} attention; output layer for {logits} of the prompt",
        "",
        *_parameter_lines(values),
    ]
    for name, rows in values["tables"].items():
        lines += ["", TITLES[name], *(_task_lines(rows) if name == "tasks" else _paper_lines(rows))]
    return "\n".join([*lines, "", *(f"note: {note}" for note in values["notes"])])


def _parameter_lines(values: dict[str, Any]) -> list[str]:
    lines = [f"{'parameters':<34}{'total':>18}{'activated':>18}"]
    for kind, name in values["names"].items():
        for part, counts in values["parameters"][kind].items():
            label = name if part == "all" else f"  {part.replace('_', ' ')}"
            lines.append(f"{label:<34}{counts['total']:>18,}{counts['activated']:>18,}")
    return lines


def _paper_lines(rows: list[Row]) -> list[str]:
    width = max(len(row["name"]) for row in rows)
    published = any(row["paper_flops"] for row in rows)
    paper_head = f"{'paper':>13}{'ratio':>8}{'ours/paper':>12}" if published else ""
    lines = [f"{'':<{width}}{'video':>8}{'frames':>8}{'tokens':>9}{'TFLOPs':>10}{'ratio':>8}{paper_head}"]
    for row in rows:
        beside = ""
        if row["paper_flops"]:
            ratio = f"{row['paper_ratio']:.3f}"
            beside = f"{row['paper_flops']:>13.4e}{ratio:>8}{row['ours_of_paper']:>12.5f}"
        lines.append(
            f"{row['name']:<{width}}{row['duration_s']:>6g} s{row['num_frames']:>8.1f}{row['visual_tokens']:>9.0f}"
            f"{row['total_flops'] / 1e12:>10.2f}{row['ratio']:>8.3f}{beside}"
        )
    return lines


def _task_lines(rows: list[Row]) -> list[str]:
    width = max(len(row["name"]) for row in rows)
    parts = ("encoder", "gates", "projector", "prefill", "decode", "total")
    heads = "".join(f"{part:>10}" for part in parts)
    lines = [f"{'TFLOPs':<{width}}{'video':>8}{'frames':>8}{'stride':>8}{'tokens':>9}{heads}{'ratio':>8}"]
    for row in rows:
        flops = "".join(f"{row[f'{part}_flops'] / 1e12:>10.3f}" for part in parts)
        lines.append(
            f"{row['name']:<{width}}{row['duration_s']:>6g} s{row['num_frames']:>8}{row['pool_stride']:>8}"
            f"{row['visual_tokens']:>9}{flops}{row['ratio']:>8.3f}"
        )
    return lines
