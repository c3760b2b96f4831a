"""``tam bench e2e``: a whole answer (frames, tower, prefill, decoding) at TAM's budgets beside the fixed baseline's.

Every way is the same code, :class:`~tam_plugin.patches.onevision.VideoAssistant`: the dense model at 64 frames and
stride 2, TAM at that very budget, and TAM at each budget that its policy has for the eight task types. Beside each
stand the operations that ``tam flops`` counts for it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.bench.memory import peak_growth
from tam_plugin.bench.step import PRESETS
from tam_plugin.bench.timing import compare
from tam_plugin.bench.video import long_video
from tam_plugin.errors import InputError

if TYPE_CHECKING:
    from tam_plugin.bench.whole_answer import WholeAnswer
    from tam_plugin.budget import VisualBudget
    from tam_plugin.eval.flops import Subject
    from tam_plugin.patches.onevision import VideoAssistant
    from tam_plugin.taxonomy import TaskType

DURATIONS_S = (15, 60, 180)
QUESTION = "What happens in this video, and in which order? Answer in one sentence."
_MIB = 2**20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of ``tam bench e2e``."""
    parser.add_argument("--model", metavar="PATH", help="a TAM or llava-hf checkpoint (default: random weights)")
    parser.add_argument(
        "--preset", choices=PRESETS, help="size of random weights: tiny (default on a CPU), 7b (default on cuda)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if available")
    parser.add_argument("--duration", type=int, nargs="+", default=DURATIONS_S, metavar="S", help="(15 60 180)")
    parser.add_argument(
        "--new-tokens", type=int, default=16, metavar="N", help="length of the answer (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default: %(default)s)")
    parser.add_argument("--workdir", help="where to keep the videos for the next run (default: a temporary folder)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Make the videos and the models, then time every way of each length, interleaved.

    Returns:
        What was run and its ``rows``. A row's ``ratio`` is its seconds over the baseline's of the same length, and so
        are ``cpu_ratio``, ``memory_ratio`` and ``flops_ratio``: above 1 it takes more.

    Raises:
        InputError: a count below 1, ``cuda`` without a GPU, or ``7b`` without one.
        TamError: the checkpoint cannot be read.
    """
    import torch

    from tam_plugin.bench.whole_answer import make_models

    device, preset = _check(args)
    rows: list[dict[str, Any]] = []
    with nullcontext(args.workdir) if args.workdir else tempfile.TemporaryDirectory() as folder:
        models, subject = make_models(args.model, preset, device)
        for duration_s in sorted(set(args.duration)):
            path = long_video(Path(folder), duration_s)
            rows += _measure(_ways(models, path, args.new_tokens), subject, args, device)
    return {
        "model": args.model or f"random weights, preset {preset}",
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "dtype": str(next(iter(models.values())).loaded.model.dtype).removeprefix("torch."),
        "torch_threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "rounds": args.rounds,
        "new_tokens": args.new_tokens,
        "notes": _notes(args.model, preset, models),
        "rows": rows,
    }


def _check(args: argparse.Namespace) -> tuple[str, str]:
    """Check the arguments; returns device and preset."""
    import torch

    for name in ("new_tokens", "rounds"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)}: expected a whole number >= 1")
    for duration_s in args.duration:
        if duration_s < 1:
            raise InputError(f"--duration {duration_s}: expected whole seconds >= 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA GPU here; use --device cpu")
    if args.model and args.preset:
        raise InputError(f"--preset {args.preset} is the size of random weights: leave it out beside --model")
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    preset = args.preset or ("7b" if device == "cuda" else "tiny")
    if preset == "7b" and device == "cpu" and not args.model:
        raise InputError("--preset 7b: expected a CUDA GPU, and this would run on the CPU; use --preset tiny")
    return device, preset


def _ways(models: dict[str, VideoAssistant], path: Path, new_tokens: int) -> list[WholeAnswer]:
    """The baseline, TAM at the baseline's budget, and TAM once for each budget of its policy."""
    from tam_plugin.bench.whole_answer import DENSE, TAM, WholeAnswer
    from tam_plugin.budget import BASELINE_FRAMES, BASELINE_STRIDE, FixedPolicy
    from tam_plugin.taxonomy import TaskDistribution, TaskType
    from tam_plugin.video import probe_video

    info, decider = probe_video(path), models[TAM].decider()
    fixed = FixedPolicy(layout=decider.adapted(0, 0).layout).budget(None, info.duration_s, video_frames=info.num_frames)
    shared: dict[str, Any] = {"path": path, "query": QUESTION, "new_tokens": new_tokens}
    ways = []
    for name in (DENSE, TAM):
        if name in models:
            ways.append(
                WholeAnswer(models[name], f"{name} at {BASELINE_FRAMES}:{BASELINE_STRIDE}", fixed, (), **shared)
            )
    by_budget: dict[VisualBudget, list[TaskType]] = {}
    for task in TaskType:
        asked = TaskDistribution.one_hot(task)
        budget = decider.adapted(0, 0).budget(asked, info.duration_s, video_frames=info.num_frames)
        size = (budget.num_frames, budget.pool_stride)
        same = next((b for b in by_budget if (b.num_frames, b.pool_stride) == size), budget)
        by_budget.setdefault(same, []).append(task)
    for budget, tasks in by_budget.items():
        name = f"{TAM}, task types {' '.join(str(task.index) for task in tasks)}"
        ways.append(WholeAnswer(models[TAM], name, budget, tuple(task.label for task in tasks), **shared))
    return ways


def _measure(ways: list[WholeAnswer], subject: Subject, args: argparse.Namespace, device: str) -> list[dict[str, Any]]:
    from tam_plugin.bench.whole_answer import DENSE
    from tam_plugin.flops import count_flops

    growth = {way.name: peak_growth(way, device) for way in ways}
    seconds = compare({way.name: way for way in ways}, args.rounds)
    rows: list[dict[str, Any]] = []
    for way in ways:
        shape = subject.model.dense() if way.name.startswith(DENSE) else subject.model
        text = way.prompt_tokens - way.budget.visual_tokens
        flops = count_flops(shape, way.budget, text_tokens=text, new_tokens=args.new_tokens).total
        grown = growth[way.name]
        row: dict[str, Any] = {
            "name": f"{way.info.duration_s:g} s: {way.name}",
            "duration_s": way.info.duration_s,
            "tasks": list(way.tasks),
            "frames": way.budget.num_frames,
            "stride": way.budget.pool_stride,
            "visual_tokens": way.budget.visual_tokens,
            "seconds": seconds[way.name],
            "cpu_seconds": way.cpu_seconds(args.rounds),
            "parts_s": {part: round(value, 4) for part, value in way.medians(args.rounds).items()},
            "peak_mib": None if grown is None else round((grown + way.weight_bytes) / _MIB, 1),
            "tflops": flops / 1e12,
        }
        first = rows[0] if rows else row
        row["ratio"] = row["seconds"] / first["seconds"]
        row["cpu_ratio"] = row["cpu_seconds"] / first["cpu_seconds"]
        row["memory_ratio"] = row["peak_mib"] / first["peak_mib"] if row["peak_mib"] else None
        row["flops_ratio"] = row["tflops"] / first["tflops"]
        rows.append(row)
    return rows


def describe_rows(rows: list[dict[str, Any]]) -> list[str]:
    """The table in human-readable form."""
    width = max(len(row["name"]) for row in rows)
    head = f"{'':<{width}}{'frames':>8}{'tokens':>8}{'median':>11}{'ratio':>7}{'CPU':>7}{'peak MiB':>10}{'ratio':>7}"
    lines = [f"{head}{'TFLOPs':>10}{'ratio':>7}  seconds: frames, tower, prefill, decoding, rest"]
    for row in rows:
        memory = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        of_it = "-" if row["memory_ratio"] is None else f"{row['memory_ratio']:.2f}"
        parts = " / ".join(f"{value:.2f}" for value in row["parts_s"].values())
        frames = f"{row['frames']}:{row['stride']}"
        lines.append(
            f"{row['name']:<{width}}{frames:>8}{row['visual_tokens']:>8}{row['seconds']:>9.3f} s{row['ratio']:>7.2f}"
            f"{row['cpu_ratio']:>7.2f}{memory:>10}{of_it:>7}{row['tflops']:>10.4f}{row['flops_ratio']:>7.2f}  {parts}"
        )
    return lines


def _notes(path: str | None, preset: str, models: dict[str, VideoAssistant]) -> list[str]:
    notes = [
        "a ratio is a way's figure over the first way's of the same length: above 1 it takes more",
        "CPU: the ratio of the seconds that the process's threads computed, which other work disturbs least",
        "TAM's seconds hold the Inductor's; the budget is that of the row's task types, whatever it says",
        "peak: the model's weights and what one answer takes besides; one model at a time, though all are loaded",
    ]
    if path is None and preset == "tiny":
        notes.append("preset tiny: toy shapes, whose time is mostly attention; their ratios say nothing of a 7B")
    if len(models) == 1:
        notes.append("a TAM checkpoint: the baseline is this very model at 64:2, not a dense one")
    return notes
