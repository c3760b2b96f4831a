"""Parameters of a checkpoint and the cost of a question, from names, shapes and arithmetic; nothing is run or written.

Parameters are those of the tensors. Operations are :mod:`tam_plugin.flops`': all matrix products, attention over the
whole square of scores, the output layer for one token, and no text beside the video.
"""

from __future__ import annotations

import math
from typing import Any

from tam_plugin.budget import FixedPolicy, Policy, VisualBudget
from tam_plugin.budget.stored import stored_policy
from tam_plugin.checkpoint.mapping import to_mixture
from tam_plugin.checkpoint.source import Source
from tam_plugin.checkpoint.tensor_layout import TensorLayout
from tam_plugin.config import TamConfig
from tam_plugin.errors import ConfigError
from tam_plugin.flops import EncoderShape, LanguageShape, ModelShape, ProjectorShape, count_flops
from tam_plugin.taxonomy import TaskDistribution, TaskType

REFERENCE_S = 60.0


def inspect(
    source: Source,
    layout: TensorLayout,
    tam: TamConfig,
    *,
    duration_s: float = REFERENCE_S,
    pool_mode_given: bool = False,
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
    policy, baseline = policies(layout, tam)
    head = any(name.startswith(f"{layout.encoder}head.") for name in shapes)
    model = model_shape(layout, tam, _projector_layers(shapes, layout, tam), pooling_head=head)
    # The baseline is the dense model: one expert, no router, one projector.
    rows = [_row("fixed baseline", baseline.budget(None, duration_s), model.dense())]
    for task in TaskType:
        rows.append(_row(task.label, policy.budget(TaskDistribution.one_hot(task), duration_s), model))
    base = rows[0]["total_flops"]
    for row in rows:
        row["of_baseline"] = round(row["total_flops"] / base, 4)
    return {
        "host": layout.host,
        "checkpoint": "TAM" if layout.tam is not None else "dense (figures are those of what it becomes)",
        "experts": tam.moe.num_experts if tam.moe.enabled else 1,
        "top_k": tam.moe.top_k if tam.moe.enabled else 1,
        "strides": list(tam.projector.strides),
        "duration_s": duration_s,
        "parameters": parameters,
        "rows": rows,
        "notes": list(layout.notes),
    }


def policies(layout: TensorLayout, tam: TamConfig) -> tuple[Policy, FixedPolicy]:
    """The budget policy of a TAM model and the fixed baseline, both in the model's token layout.

    Raises:
        ConfigError: the policy is bad, asks for strides without a projector, or not one frame fits.
    """
    tokens = layout.token_layout(tam)
    return stored_policy(tam.policy).adapted(tokens), FixedPolicy(layout=tokens.replace(strides=None))


def _parameters(sizes: dict[str, int], layout: TensorLayout, tam: TamConfig) -> dict[str, dict[str, int]]:
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
    return sum(sizes.values()) // len(config.children)


def _activated_llm(sizes: dict[str, int], layout: TensorLayout) -> int:
    """Weights of the language model that a token uses."""
    names = {name: n for name, n in sizes.items() if not name.startswith((layout.encoder, layout.projector))}
    config = layout.language
    experts = config.get("num_experts") or config.get("num_local_experts") or 0
    share = config.get("num_experts_per_tok", experts) / experts if experts else 1.0
    return _activated(names, ".experts.", share)


def model_shape(
    layout: TensorLayout, tam: TamConfig, projector_layers: tuple[tuple[int, int], ...], *, pooling_head: bool
) -> ModelShape:
    """Sizes of the model that a layout describes, or would become.

    Args:
        layout: the checkpoint's.
        tam: experts and projectors.
        projector_layers: input and output width of each of a projector's linear layers.
        pooling_head: whether the encoder has SigLIP's pooling head.

    Raises:
        ConfigError: a field is missing or no size, or the language model's operations are not known.
    """
    bias = layout.config.get("multimodal_projector_bias", True)
    return ModelShape(
        encoder=EncoderShape.of(
            layout.vision, tam, num_layers=layout.num_layers, where=layout.where, pooling_head=pooling_head
        ),
        projector=ProjectorShape.of(projector_layers, tam.projector, bias=bias),
        language=LanguageShape.of(layout.language, layout.where),
        pool_mode=tam.projector.pool_mode,
    )


def _projector_layers(
    shapes: dict[str, tuple[int, ...]], layout: TensorLayout, tam: TamConfig
) -> tuple[tuple[int, int], ...]:
    """Widths of one projector's linear layers, from their weights; a mixture's are stacked."""
    start = f"{layout.projector}{tam.projector.children[0]}."
    weights = {name: shape for name, shape in sorted(shapes.items()) if name.startswith(start)}
    layers = tuple(
        (shape[-1], shape[-2])
        for name, shape in weights.items()
        if name.endswith(".weight") and len(shape) >= 2 and not name.startswith(f"{start}gate.")
    )
    if not layers:
        raise ConfigError(f"{layout.where} holds no linear layer under {start}*: its operations cannot be counted")
    return layers


def _row(name: str, budget: VisualBudget, model: ModelShape) -> dict[str, Any]:
    flops = count_flops(model, budget)
    return {
        "name": name,
        "num_frames": budget.num_frames,
        "pool_stride": budget.pool_stride,
        "visual_tokens": budget.visual_tokens,
        "encoder_flops": flops.encoder + flops.gates,
        "projector_flops": flops.projector,
        "prefill_flops": flops.prefill,
        "total_flops": flops.total,
    }


def describe(values: dict[str, Any]) -> str:
    """The figures in human-readable form."""
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
