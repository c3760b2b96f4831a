"""Several processes that train one model by data parallelism, and one process that sees all their samples."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

STEPS = 50
LEARNING_RATE = 1e-3
WAYS_OF_TWO = ("ddp", "zero1", "zero2", "zero3", "zero2-visual", "zero3-visual")
"""Kinds of data parallelism; ``-visual`` trains gates, experts and projectors alone, behind frozen layers."""
KINDS = ("video", "video", "image", "video", "text", "video", "video")
"""What a rank sees, by step and rank; neighbours in it are seen in the same step."""

Batch = Callable[[int, int], dict[str, Any]]


def kind_of(step: int, rank: int) -> tuple[str, int]:
    """The kind of sample that a rank sees at a step, and a video's stride; two ranks' strides always differ."""
    return KINDS[(step + rank) % len(KINDS)], 1 + (step + rank) % 4


def free_port() -> str:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    """The optimizer of every run here."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE, eps=1e-6)


def prepare(model: torch.nn.Module, way: str) -> torch.nn.Module:
    """The model in training, with what the way trains."""
    if way.endswith("-visual"):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in (".gate.", ".experts.", "projector", "newline")))
    return model.train()


def alone(model: torch.nn.Module, batch: Batch, world: int) -> dict[str, torch.Tensor]:
    """Train on every rank's samples in one process; the parameters at the end."""
    optimizer = optimizer_of(model)
    for step in range(STEPS):
        for rank in range(world):
            (model(**batch(step, rank)).loss / world).backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def together(host: str, ways: list[str], world: int, folder: Path) -> None:
    """Train by ``world`` processes in each of the ways; the parameters of each rank go to ``folder``.

    Raises:
        AssertionError: a process failed; with what it printed last.
    """
    port = free_port()
    processes = []
    for rank in range(world):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
        more = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
        command = [sys.executable, "-m", "tests.rank_worker", host, str(folder), *ways]
        log = (folder / f"{world}.{rank}.log").open("w")
        processes.append(subprocess.Popen(command, env={**os.environ, **ranks, **more}, stdout=log, stderr=log))
        log.close()
    try:
        codes = [process.wait(timeout=400) for process in processes]
    finally:
        for process in processes:
            process.kill()
    printed = "\n".join((folder / f"{world}.{rank}.log").read_text()[-3000:] for rank in range(world))
    assert codes == [0] * world, printed


def result(folder: Path, way: str, rank: int) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """A rank's parameters at the end, and what its log said."""
    from safetensors.torch import load_file

    return load_file(folder / f"{way}.{rank}.safetensors"), json.loads((folder / f"{way}.{rank}.json").read_text())


def check(module: Any, ways: list[str], world: int, folder: Path) -> None:
    """Every rank ends with the same bits, and with what one process comes to.

    Args:
        module: a host's ``rank_model``.
        ways: ways that :func:`together` trained.
        world: number of processes.
        folder: where their parameters lie.
    """
    for way in ways:
        model = prepare(module.model(), way)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        expected = alone(model, module.batch, world)
        log = module.logged(model)
        moved = [name for name in expected if not torch.equal(expected[name], before[name])]
        for part in ("stride_1", "stride_4", ".gate.", ".experts.", *(() if "-" in way else ("lm_head",))):
            assert any(part in name for name in moved), part
        first, logged = result(folder, way, 0)
        assert first.keys() == expected.keys()
        for rank in range(1, world):
            other, also_logged = result(folder, way, rank)
            assert all(torch.equal(first[name], other[name]) for name in first), f"{way}: rank {rank} differs"
            assert also_logged == logged
        for name, tensor in expected.items():
            difference = (first[name] - tensor).abs().max().item()
            assert difference <= 1e-5, f"{way}, {world} processes: {name} differs by {difference:.2g}"
        assert logged.keys() == log.keys()
        assert all(abs(logged[name] - value) < 1e-4 for name, value in log.items()), (way, logged, log)


def orders(module: Any, steps: int = len(KINDS)) -> list[list[str]]:
    """For each of a rank's first steps, the order in which parameters get their gradients."""
    model, seen, found = prepare(module.model(), ""), [], []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: seen.append(name))
    for step in range(steps):
        seen.clear()
        model(**module.batch(step, 0)).loss.backward()
        found.append(list(seen))
    assert {kind_of(step, 0)[0] for step in range(steps)} == set(KINDS)
    assert set(found[0]) == {name for name, _ in model.named_parameters()}
    return found
