"""Small forward passes side by side: on CPUs that is faster than many threads inside each matrix product."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tam_plugin.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Threads of which each uses one thread of torch; a context manager that ends them.

    One computes as each of many does, so their number changes no result. They live as long as this object.

    Args:
        count: how many.

    Raises:
        InputError: fewer than one.
    """

    def __init__(self, count: int) -> None:
        import torch

        if count < 1:
            raise InputError(f"the number of workers must be at least 1, got {count}")
        # The number belongs to the thread that sets it, and to threads that have not used torch yet.
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """``work`` of each item, in the order of the items; the first error is raised.

        The caller's number of torch threads is the same afterwards.
        """
        import torch

        before = torch.get_num_threads()
        try:
            return list(self._pool.map(work, items))
        finally:
            torch.set_num_threads(before)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
