"""The seed of the data loader's workers, which newer versions want told how many workers and which rank there are."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import parameters
from tam_plugin.patches.record import Patch


def _wants_more_than_its_number(module: ModuleType) -> bool:
    needed = [p for p in parameters(module.seed_worker).values() if p.default is inspect.Parameter.empty]
    return len(needed) > 1


def _seed_worker(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def seed_worker(worker_id: int, num_workers: int | None = None, rank: int | None = None) -> None:
        """Like transformers' function, but also without the arguments that a worker can find out by itself."""
        if num_workers is None:
            from torch.utils.data import get_worker_info

            worker = get_worker_info()
            num_workers = worker.num_workers if worker is not None else 1
        original(worker_id, num_workers, int(os.environ.get("RANK", "0")) if rank is None else rank)

    return seed_worker


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="trainer_workers.seed_worker",
        target="llava.train.llava_trainer:seed_worker",
        reason="the host's data loader passes the worker's number alone: any --dataloader_num_workers above 0 fails",
        wrap=_seed_worker,
        group="compat",
        signatures=(("worker_id", "num_workers", "rank"),),
        needed=_wants_more_than_its_number,
    ),
)
