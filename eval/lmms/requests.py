"""lmms-eval's requests as plain values, whatever their kind."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tam_plugin.errors import ConfigError, InputError

WORST_LOSS = 1e9
"""More than any continuation has, and finite."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        task: the task's name.
        split: split of its data.
        doc_id: the row's number.
        index: the request's number within the row.
        context: the text, as the task words it.
        doc: the row.
        doc_to_visual: gives the row's video.
        continuation: the text whose likelihood is asked for; None where an answer is to be generated.
        generation: the task's ``generation_kwargs``.
    """

    task: str
    split: str
    doc_id: int
    index: int
    context: str
    doc: Mapping[str, Any]
    doc_to_visual: Any = field(repr=False)
    continuation: str | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells it from others; a request that only pads a rank's share has that of the one it repeats."""
        return self.task, self.split, self.doc_id, self.index, self.context, self.continuation

    def losing_loss(self) -> float:
        """The loss of a continuation that was not scored: the right one can never come out as the least.

        Where a task's own scoring looks for a loss under infinity, it finds none. lmms-eval's takes the least, whatever
        it is: there only the right continuations are infinitely bad.
        """
        task = getattr(self.doc_to_visual, "__self__", None)
        config = getattr(task, "config", None)
        if task is None or callable(getattr(config, "process_results", None)):
            return math.inf
        right = task.doc_to_target(self.doc)
        right = right if isinstance(right, (list, tuple)) else [right]
        return math.inf if {self.index, self.continuation and self.continuation.strip()} & set(right) else WORST_LOSS

    def video(self) -> str:
        """Path of the video file or frame folder.

        Raises:
            InputError: the task finds no file.
            ConfigError: the task shows something else than one video.
        """
        try:
            visuals = self.doc_to_visual(self.doc)
        except SystemExit as error:  # several tasks leave the whole program where a file is missing
            raise InputError(str(error.code)) from error
        except OSError as error:
            raise InputError(f"task {self.task}, row {self.doc_id}: {error}") from error
        if isinstance(visuals, (str, os.PathLike)):
            visuals = [visuals]
        if not visuals or len(visuals) != 1 or not isinstance(visuals[0], (str, os.PathLike)):
            kinds = ", ".join(sorted({type(v).__name__ for v in visuals or ()})) or "nothing"
            raise ConfigError(
                f"task {self.task}, row {self.doc_id} shows {len(visuals or ())} things ({kinds}): expected the path "
                "of one video or folder of frames; TAM models take video tasks"
            )
        return os.fspath(visuals[0])


def read_request(instance: Any, datasets: Mapping[str, Any]) -> Request:
    """A request from lmms-eval's ``Instance``.

    Args:
        instance: of type ``generate_until`` or ``loglikelihood``.
        datasets: the model's ``task_dict``: rows by task, split and number.

    Raises:
        ConfigError: it has other parts than lmms-eval 0.7.3 gives it.
    """
    arguments = instance.args
    if len(arguments) != 6:
        raise ConfigError(
            f"a {instance.request_type} request of task {instance.task_name} has {len(arguments)} parts: expected 6; "
            "requests without a video (acc_mutual_info) are not supported"
        )
    context, second, doc_to_visual, doc_id, task, split = arguments
    doc = datasets[task][split][doc_id]
    values: dict[str, Any] = {
        "task": task,
        "split": split,
        "doc_id": doc_id,
        "index": instance.idx,
        "context": context,
        "doc": doc,
        "doc_to_visual": doc_to_visual,
    }
    if instance.request_type == "loglikelihood":
        values["continuation"] = second if isinstance(second, str) else str(second(doc))
    else:
        values["generation"] = second
    return Request(**values)


def batches(requests: Sequence[Request], asked: Sequence[int], size: int) -> Iterator[list[int]]:
    """Neighbours that are computed alike, at most ``size`` of them.

    Args:
        requests: all of them.
        asked: numbers of those to be batched, in their order.
        size: requests of a batch, at most.
    """
    batch: list[int] = []
    for number in asked:
        alike = not batch or requests[number].generation == requests[batch[0]].generation
        if len(batch) == size or not alike:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
