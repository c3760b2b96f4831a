"""Operations of a run's requests, worked out from its sample log and the sizes of its model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tam_plugin.budget import Policy, TokenLayout, read_policy
from tam_plugin.checkpoint.figures import policies
from tam_plugin.config import TamConfig
from tam_plugin.eval.ablations import Ablation, find
from tam_plugin.eval.flops import from_path, from_preset
from tam_plugin.eval.flops.subjects import Subject
from tam_plugin.eval.report.runs import Run
from tam_plugin.flops import EncoderShape, ModelShape, ProjectorShape, count_flops
from tam_plugin.patches.hosts import lmms_models


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the requests of a run took on average.

    Attributes:
        model: the mixture, or the dense model.
        requests: number of requests that were computed.
        frames: mean frames.
        visual_tokens: mean tokens of the video.
        flops: mean operations.
    """

    model: str
    requests: int
    frames: float
    visual_tokens: float
    flops: float


def subject_of(run: Run, model: str | None, preset: str | None) -> Subject | str:
    """The model whose sizes are counted, or why there is none.

    Args:
        run: the evaluation; its ``pretrained`` is read where neither of the others is given.
        model: checkpoint folder or its config.json.
        preset: published sizes.

    Raises:
        TamError: what was given cannot be read.
    """
    if preset is not None:
        return from_preset(preset)
    where = model if model is not None else str(run.arguments.get("pretrained", ""))
    if model is None and not (Path(where) / "config.json").is_file():
        return f"{run.name}: config.json of pretrained={where} was not found here; name sizes by --model or --preset"
    return from_path(where)


def cost_of(run: Run, subject: Subject) -> Cost | str:
    """Mean operations of the run's requests, or why they cannot be counted."""
    if run.log is None:
        return f"{run.name}: no sample log; evaluate with log=FILE.jsonl in --model_args"
    records = [record for record in run.log if record.get("frames") and record.get("prompt_tokens")]
    if not records:
        return f"{run.name}: the sample log holds no request with an answer"
    evaluated_by = lmms_models().get(run.model)
    stays_dense = evaluated_by is not None and not evaluated_by.upgrades_dense
    is_dense = subject.layout.tam is None and stays_dense and is_fixed(run)
    shape, ablation = subject.model.dense() if is_dense else subject.model, ablation_of(run)
    if ablation is not None and not is_dense:
        shape = _changed(subject, ablation.tam(subject.tam))
    count = len(records)
    return Cost(
        model=(subject.name if is_dense else subject.tam_name) + (f", {ablation.name}" if ablation else ""),
        requests=count,
        frames=sum(record["frames"] for record in records) / count,
        visual_tokens=sum(record["visual_tokens"] for record in records) / count,
        flops=sum(_flops(shape, record) for record in records) / count,
    )


def policy_of(run: Run, subject: Subject | str) -> Policy | str:
    """The policy that decided a run's budgets, for its model, or why it cannot be known."""
    if isinstance(subject, str):
        return subject
    tam, file = subject.tam, policy_name(run)
    if is_fixed(run):
        return f"{run.name}: policy={file} has no curve"
    if file:
        if not Path(file).is_file():
            return f"{run.name}: the policy file {file} was not found here"
        tam = tam.replace(policy=read_policy(file).to_dict())
    policy = policies(subject.layout, tam)[0]
    most = run.arguments.get("max_frames")
    return policy.capped(int(most)) if most else policy


def ablation_of(run: Run) -> Ablation | None:
    """The row of the paper's ablation tables that was evaluated, if one was."""
    name = run.arguments.get("ablation")
    return find(str(name)) if name else None


def policy_name(run: Run) -> str | None:
    """The policy as ``--model_args`` name it; None for the checkpoint's own."""
    ablation, given = ablation_of(run), run.arguments.get("policy")
    return str(given) if given else ablation.policy if ablation is not None else None


def is_fixed(run: Run) -> bool:
    """Whether every question had the same budget."""
    return (policy_name(run) or "").startswith("fixed:")


def _changed(subject: Subject, tam: TamConfig) -> ModelShape:
    """The model with other experts and projectors."""
    layout, model = subject.layout, subject.model
    head = model.encoder.pooling_head
    return dataclasses.replace(
        model,
        encoder=EncoderShape.of(
            layout.vision, tam, num_layers=layout.num_layers, where=layout.where, pooling_head=head
        ),
        projector=ProjectorShape.of(model.projector.layers, tam.projector, bias=model.projector.bias),
    )


def _flops(shape: ModelShape, record: Mapping[str, Any]) -> int:
    layout = TokenLayout(grid=shape.encoder.grid, pool_mode=shape.pool_mode)
    budget = layout.budget(record["frames"], record["stride"])
    visual, output = record["visual_tokens"], record["output_tokens"]
    text, new = record["prompt_tokens"] - visual, output
    if record["continuation"] is not None:  # scored in one pass together with the prompt
        text, new = text + output, 1
    budget = dataclasses.replace(budget, visual_tokens=visual)
    return count_flops(shape, budget, text_tokens=text, new_tokens=max(1, new)).total
