"""What a training step needs of each GPU, by arithmetic: an estimate before anything is started.

P parameters of which T train, N data-parallel GPUs, n tokens of the longest sample, H the language model's width, I its
MLP's, L its layers, V its vocabulary; D, J, M the same of the vision encoder with K experts per token, F frames of p
patches. Weights and gradients take 2 bytes each (bfloat16), the optimizer 12 (float32 weights and two moments, AdamW):

- weights 2·P, over N with ZeRO-3; gradients 2·T, over N from ZeRO-2 on; optimizer 12·T, over N from ZeRO-1 on
  (Rajbhandari et al. 2020, Sec. 3), in the host's memory if offloaded;
- activations with gradient checkpointing: a layer's input for each layer, 2·L·n·H and 2·M·F·p·D, and one layer at work,
  2·n·(8·H + 3·I) and 2·F·p·(8·D + 3·K·J); without it every layer is at work;
- logits 10·n·V: bfloat16, their float32 copy and its gradient.

Buffers of the communication, fragmentation, CUDA's own share and the frames themselves come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

GIGA = 1e9
LAYER_WIDTHS = 8
"""Tensors of a layer's width that are alive while it works: norms, queries, keys, values, attention, residuals."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One training step.

    Attributes:
        parameters: P.
        trainable: T.
        gpus: N.
        zero_stage: of DeepSpeed; 0 is plain data parallelism.
        offload_optimizer: whether the optimizer is in the host's memory.
        offload_parameters: whether ZeRO-3 keeps weights there too.
        checkpointing: gradient checkpointing.
        tokens: n, of all samples of a GPU's batch together.
        frames: F.
        patches: p.
        language: ``hidden_size``, ``intermediate_size``, ``num_hidden_layers``, ``vocab_size``.
        vision: ``hidden_size``, ``intermediate_size``, ``num_hidden_layers``, and ``top_k``.
    """

    parameters: int
    trainable: int
    gpus: int
    zero_stage: int
    offload_optimizer: bool
    offload_parameters: bool
    checkpointing: bool
    tokens: int
    frames: int
    patches: int
    language: dict[str, int]
    vision: dict[str, int]


def estimate(step: Step) -> dict[str, float]:
    """Bytes by what takes them: of each GPU, and ``host_per_gpu`` of the host's memory.

    Returns:
        ``weights``, ``gradients``, ``optimizer``, ``activations``, ``logits``, their sum ``gpu``, and ``host_per_gpu``.
    """
    split = [step.gpus if step.zero_stage >= stage else 1 for stage in (1, 2, 3)]
    weights, gradients = 2 * step.parameters / split[2], 2 * step.trainable / split[1]
    optimizer = 12 * step.trainable / split[0]
    host = (optimizer if step.offload_optimizer else 0) + (weights if step.offload_parameters else 0)
    parts: dict[str, float] = {
        "weights": 0 if step.offload_parameters else weights,
        "gradients": gradients,
        "optimizer": 0 if step.offload_optimizer else optimizer,
        "activations": _activations(step.language, step.tokens, 1, step.checkpointing)
        + _activations(step.vision, step.frames * step.patches, step.vision.get("top_k", 1), step.checkpointing),
        "logits": 10 * step.tokens * step.language["vocab_size"],
    }
    return {**parts, "gpu": sum(parts.values()), "host_per_gpu": host}


def _activations(sizes: dict[str, int], tokens: int, top_k: int, checkpointing: bool) -> int:
    width, inner, layers = sizes["hidden_size"], sizes["intermediate_size"], sizes["num_hidden_layers"]
    at_work = 2 * tokens * (LAYER_WIDTHS * width + 3 * top_k * inner)
    return 2 * layers * tokens * width + at_work if checkpointing else layers * at_work


def format_estimate(values: dict[str, float], *, gpu_bytes: float = 80 * GIGA) -> str:
    """The estimate for people, and whether it fits."""
    lines = [f"{name:<12}{values[name] / GIGA:>10.1f} GB" for name in values if name not in ("gpu", "host_per_gpu")]
    share = values["gpu"] / gpu_bytes
    verdict = "fits" if share < 0.9 else "is tight on" if share <= 1 else "does not fit"
    lines.append(f"{'each GPU':<12}{values['gpu'] / GIGA:>10.1f} GB: {verdict} {gpu_bytes / GIGA:.0f} GB")
    if values["host_per_gpu"]:
        lines.append(f"{'host':<12}{values['host_per_gpu'] / GIGA:>10.1f} GB for each GPU of a machine")
    return "\n".join(lines)


def zero_settings(config: dict[str, Any] | None) -> dict[str, Any]:
    """``zero_stage`` and offloading of a DeepSpeed configuration, as :class:`Step` takes them."""
    zero = (config or {}).get("zero_optimization", {})

    def offloads(name: str) -> bool:
        return (zero.get(name) or {}).get("device", "none") != "none"

    return {
        "zero_stage": int(zero.get("stage", 0)),
        "offload_optimizer": offloads("offload_optimizer"),
        "offload_parameters": offloads("offload_param"),
    }
