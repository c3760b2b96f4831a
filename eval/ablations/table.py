"""Every row on a tiny model: what it answers, and what it costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch

from tam_plugin.budget import VisualBudget, read_policy
from tam_plugin.config import InstructionConfig, TamConfig
from tam_plugin.deciding import compose_question, instruction_lines
from tam_plugin.eval.ablations.applying import controlled
from tam_plugin.eval.ablations.rows import BASELINE_POLICY, ROWS, Ablation, find
from tam_plugin.eval.ablations.tiny import Case, TinyModels, cases, shape_of
from tam_plugin.flops import count_flops

NEW_TOKENS = 4


def run_row(ablation: Ablation, models: TinyModels, asked: Sequence[Case], model: Any = None) -> dict[str, Any]:
    """One row: hash of its answers, means of its tokens and operations over the questions.

    Args:
        ablation: the row.
        models: where its model comes from.
        asked: the questions.
        model: one that has the row's settings already, in place of a new one.
    """
    model = models.build(ablation.tam(TamConfig())) if model is None else model
    digest, frames, visual, flops = hashlib.sha256(), 0, 0, 0.0
    for number, case in enumerate(asked):
        output, budget, prompt = _answer(ablation, model, models, case, [models.draws, number])
        digest.update(output)
        frames += budget.num_frames
        visual += budget.visual_tokens
        text = prompt - budget.visual_tokens
        flops += count_flops(shape_of(model.config), budget, text_tokens=text, new_tokens=NEW_TOKENS).total
    count = len(asked)
    return {
        "name": ablation.name,
        "table": ablation.table,
        "row": ablation.row,
        "settings": ablation.settings(),
        "output": digest.hexdigest()[:12],
        "num_frames": frames / count,
        "visual_tokens": visual / count,
        "flops": flops / count,
    }


@torch.inference_mode()
def _answer(
    ablation: Ablation, model: Any, models: TinyModels, case: Case, seed: list[int]
) -> tuple[bytes, VisualBudget, int]:
    """Scores of the generated tokens as bytes, the budget, and the prompt's tokens."""
    from tam_plugin.patches.onevision import VideoTurn, build_inputs
    from tam_plugin.video import probe_video

    info = probe_video(case.path)
    policy = read_policy(None if ablation.dfr else BASELINE_POLICY).adapted(model.config.token_layout)
    budget = policy.budget(case.distribution, info.duration_s, video_frames=info.num_frames)
    frames, video = models.frames(case.path, budget)
    told = InstructionConfig(time=ablation.instruction, task=ablation.instruction)
    question = compose_question(case.question, instruction_lines(budget, video, told))
    turn = VideoTurn(question=question, frames=frames, pool_stride=budget.pool_stride)
    inputs = build_inputs([turn], models.tokenizer, model.config)
    with controlled(ablation, model, [budget.decided_task], [budget.num_frames], seed):
        out = model.generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
    return torch.stack(out.scores).float().numpy().tobytes(), budget, inputs["input_ids"].shape[1]


def table(path: str, names: Sequence[str] | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """Every row (or those named), each with the first row before it that computes exactly the same.

    Raises:
        ConfigError: an unknown row.
        InputError: the video cannot be read.
    """
    chosen = [find(name) for name in (names or ROWS)]
    models, asked = TinyModels(seed), cases(path)
    first: dict[tuple[Any, ...], str] = {}
    rows = []
    for ablation in chosen:
        row = run_row(ablation, models, asked)
        key = (row["output"], row["visual_tokens"], row["flops"])
        rows.append({**row, "same_as": first.get(key)})
        first.setdefault(key, ablation.name)
    return rows


def describe(rows: Sequence[dict[str, Any]]) -> str:
    """The table in human-readable form."""
    width, words = (max(len(row[part]) for row in rows) for part in ("name", "row"))
    lines = [f"{'':<{width}}  {'':<{words}}  {'output':<12}{'frames':>8}{'tokens':>8}{'MFLOPs':>10}  same as"]
    for row in rows:
        lines.append(
            f"{row['name']:<{width}}  {row['row']:<{words}}  {row['output']:<12}{row['num_frames']:>8.1f}"
            f"{row['visual_tokens']:>8.0f}{row['flops'] / 1e6:>10.1f}  {row['same_as'] or ''}"
        )
    trained = [f"{row['name']}: {row['settings']['training']}" for row in rows if "training" in row["settings"]]
    return "\n".join([*lines, *(f"note: weights of {line}" for line in trained)])
