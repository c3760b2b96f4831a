"""Small forward passes side by side: on CPUs that is faster than many threads inside each matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> list[Result]:
    """``work`` of each item, in the order of the items, on ``workers`` threads that use one thread of torch each.

    One worker computes as each of many does, so their number changes no result. The caller's number of torch threads
    is the same afterwards; threads that begin to use torch meanwhile find one.
    """
    import torch

    before = torch.get_num_threads()
    try:
        # The number belongs to the thread that sets it, and to threads that have not used torch yet.
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(before)
