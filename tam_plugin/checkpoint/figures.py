"""What a model holds and what a question costs it, from names, shapes and arithmetic; nothing is run or written.

Operations count a multiplication and an addition as two. P patches a frame, D and I the encoder's widths, L layers
and E experts of which K are taken, T frames, n visual tokens, H the language model's width, M its layers:

- encoder, a frame: patches 2·P·D·C·p²; each layer 8·P·D² (attention's projections) + 4·P²·D (scores and sums)
  + K·4·P·D·I (experts; K = 1 if dense) + 2·P·D·E (router);
- projector: 2 · its weights a token, on P tokens a frame (``after_projector``) or on the pooled ones;
- prefill: 2 · the activated weights of the M layers · n + 2·M·n²·H (causal attention, half of 4·M·n²·H). Embeddings
  and the output layer, which prefill uses for one token, are left out, and so is the text of the prompt.
"""

from __future__ import annotations

import math
from typing import Any

from tam_plugin.budget import BudgetPolicy, VisualBudget
from tam_plugin.checkpoint.layout import Layout
from tam_plugin.checkpoint.plan import projector_children, to_mixture
from tam_plugin.checkpoint.source import Source
from tam_plugin.config import TamConfig
from tam_plugin.taxonomy import TaskDistribution, TaskType

REFERENCE_S = 60.0
BASELINE = (64, 2)
"""Frames and stride of the fixed baseline."""

_NOT_PREFILLED = ("embed_tokens.", "lm_head.")


def inspect(
    source: Source, layout: Layout, tam: TamConfig, *, duration_s: float = REFERENCE_S, pool_mode_given: bool = False
) -> dict[str, Any]:
    """Parameters, and the cost of each task type beside the fixed baseline, as plain values.

    Args:
        source: a TAM checkpoint, or a dense one (the figures are those of what it would become).
        layout: its layout.
        tam: what a dense checkpoint would become.
        duration_s: length of the video.
        pool_mode_given: see :func:`~tam_plugin.checkpoint.upcycle`.

    Raises:
        TamError: the weights are not what the configuration says.
    """
    if layout.tam is not None:
        tam, shapes = layout.tam, source.shapes
        layout.check(shapes, tam)
    else:
        tam = layout.complete(tam, pool_mode_given=pool_mode_given)
        shapes = to_mixture(source, layout, tam, 0).shapes(source)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    parameters = _parameters(sizes, layout, tam)
    projector = tam.projector
    vision, language = layout.vision, layout.language
    grid = vision["image_size"] // vision["patch_size"]
    host = {"grid": grid, "pool_mode": projector.pool_mode, "newline_position": layout.newline_position}
    policy = BudgetPolicy.from_config(tam.policy).for_strides(projector.strides)
    context = min(policy.context.max_context_tokens, language.get("max_position_embeddings") or 10**9)
    policy = policy.for_host(**host, max_context_tokens=context)
    fixed = BudgetPolicy.fixed(*BASELINE, **host).budget(None, duration_s)
    prefilled = _activated_llm(sizes, layout, only_layers=True)
    # The baseline is the dense model: one expert, no router, one projector.
    rows = [_row("fixed baseline", fixed, layout, tam, parameters, prefilled, dense=True)]
    for task in TaskType:
        budget = policy.budget(TaskDistribution.one_hot(task), duration_s)
        rows.append(_row(task.label, budget, layout, tam, parameters, prefilled, dense=False))
    base = rows[0]["total_flops"]
    for row in rows:
        row["of_baseline"] = round(row["total_flops"] / base, 4)
    return {
        "host": layout.host,
        "checkpoint": "TAM" if layout.tam is not None else "dense (figures are those of what it becomes)",
        "experts": tam.moe.num_experts if tam.moe.enabled else 1,
        "top_k": tam.moe.top_k if tam.moe.enabled else 1,
        "strides": list(projector.strides),
        "duration_s": duration_s,
        "parameters": parameters,
        "rows": rows,
        "notes": list(layout.notes),
    }


def _parameters(sizes: dict[str, int], layout: Layout, tam: TamConfig) -> dict[str, dict[str, int]]:
    tower = {name: n for name, n in sizes.items() if name.startswith(layout.encoder)}
    projector = {name: n for name, n in sizes.items() if name.startswith(layout.projector)}
    language = sum(sizes.values()) - sum(tower.values()) - sum(projector.values())
    share = tam.moe.top_k / tam.moe.num_experts if tam.moe.enabled else 1.0
    parts = {
        "tower": {"total": sum(tower.values()), "activated": _activated(tower, ".mlp.experts.", share)},
        "projectors": {"total": sum(projector.values()), "activated": _one_projector(projector, tam)},
        "language_model": {"total": language, "activated": _activated_llm(sizes, layout)},
    }
    whole = {kind: sum(part[kind] for part in parts.values()) for kind in ("total", "activated")}
    return {"all": whole, **parts}


def _activated(sizes: dict[str, int], experts: str, share: float) -> int:
    return round(sum(n * share if experts in name else n for name, n in sizes.items()))


def _one_projector(sizes: dict[str, int], tam: TamConfig) -> int:
    config = tam.projector
    if config.gate == "soft":
        return _activated(sizes, ".experts.", config.top_k / config.num_experts)
    return sum(sizes.values()) // len(projector_children(config))


def _activated_llm(sizes: dict[str, int], layout: Layout, *, only_layers: bool = False) -> int:
    """Weights of the language model that a token uses; with ``only_layers`` without embedding and output layer."""
    names = {
        name: n
        for name, n in sizes.items()
        if not name.startswith((layout.encoder, layout.projector))
        and not (only_layers and any(part in name for part in _NOT_PREFILLED))
    }
    config = layout.language
    experts = config.get("num_experts") or config.get("num_local_experts") or 0
    share = config.get("num_experts_per_tok", experts) / experts if experts else 1.0
    return _activated(names, ".experts.", share)


def _row(
    name: str,
    budget: VisualBudget,
    layout: Layout,
    tam: TamConfig,
    parameters: dict[str, dict[str, int]],
    prefilled: int,
    *,
    dense: bool,
) -> dict[str, Any]:
    vision, language = layout.vision, layout.language
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    before = tam.projector.pool_order == "before_projector" and not dense
    projected = budget.num_frames * (budget.tokens_per_frame if before else patches)
    tokens, layers = budget.visual_tokens, language["num_hidden_layers"]
    encoder = budget.num_frames * _frame_flops(vision, layout.num_layers, tam, dense=dense)
    projector = 2 * projected * parameters["projectors"]["activated"]
    prefill = 2 * prefilled * tokens + 2 * layers * tokens**2 * language["hidden_size"]
    return {
        "name": name,
        "num_frames": budget.num_frames,
        "pool_stride": budget.pool_stride,
        "visual_tokens": tokens,
        "encoder_flops": encoder,
        "projector_flops": projector,
        "prefill_flops": prefill,
        "total_flops": encoder + projector + prefill,
    }


def _frame_flops(vision: dict[str, Any], num_layers: int, tam: TamConfig, *, dense: bool) -> int:
    wide, inner, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
    patches = (vision["image_size"] // patch) ** 2
    moe = tam.moe.enabled and not dense
    top_k, router = (tam.moe.top_k, 2 * patches * wide * tam.moe.num_experts) if moe else (1, 0)
    layer = 8 * patches * wide**2 + 4 * patches**2 * wide + top_k * 4 * patches * wide * inner + router
    return 2 * patches * wide * vision.get("num_channels", 3) * patch**2 + num_layers * layer


def describe(values: dict[str, Any]) -> str:
    """The figures for people."""
    lines = [
        f"{values['host']} checkpoint, {values['checkpoint']}",
        f"{values['top_k']} of {values['experts']} experts, strides {', '.join(map(str, values['strides']))}",
        "",
        f"{'parameters':<16}{'total':>18}{'activated':>18}",
    ]
    for part, counts in values["parameters"].items():
        lines.append(f"{part.replace('_', ' '):<16}{counts['total']:>18,}{counts['activated']:>18,}")
    width = max(len(row["name"]) for row in values["rows"])
    head = f"{'frames':>8}{'stride':>8}{'tokens':>9}{'encoder':>10}{'projector':>11}{'prefill':>10}{'all':>10}{'':>9}"
    lines += ["", f"{values['duration_s']:g} s of video, TFLOPs", f"{'':<{width}}{head}"]
    for row in values["rows"]:
        flops = [row[f"{part}_flops"] / 1e12 for part in ("encoder", "projector", "prefill", "total")]
        lines.append(
            f"{row['name']:<{width}}{row['num_frames']:>8}{row['pool_stride']:>8}{row['visual_tokens']:>9}"
            f"{flops[0]:>10.2f}{flops[1]:>11.2f}{flops[2]:>10.2f}{flops[3]:>10.2f}{row['of_baseline']:>8.2f}x"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in values["notes"])])
