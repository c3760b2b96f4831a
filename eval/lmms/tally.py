"""Every request logged, every failure counted, and both said at the end."""

from __future__ import annotations

from typing import Any

from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger

from tam_plugin.eval.lmms.sample_log import SampleLog

MAX_NAMED = 10
"""Failed requests that are named at the end."""


class Tally:
    """Sums over the requests of this process.

    Args:
        log: takes one line per request; None keeps none.
    """

    def __init__(self, log: SampleLog | None) -> None:
        self._log = log
        self._failed: list[tuple[str, int, str]] = []
        self._requests = self._tokens = 0
        self._seconds = 0.0

    def count(self, record: dict[str, Any], *, is_new: bool = True) -> None:
        """Add a request, and log it unless an earlier run did."""
        self._requests += 1
        self._seconds += record["seconds"]
        self._tokens += record.get("output_tokens") or 0
        if record["error"] is not None:
            self._failed.append((record["task"], record["doc_id"], record["error"]))
            logger.error(f"no answer: task {record['task']}, row {record['doc_id']}: {record['error']}")
        if self._log is not None and is_new:
            self._log.write({**record, "seconds": round(record["seconds"], 4)})

    def report(self, rank: int) -> None:
        """Gather all processes' sums; the first process puts them into the results and names what failed."""
        from accelerate.utils import gather_object

        failed = gather_object(self._failed)
        requests, tokens = (sum(gather_object([n])) for n in (self._requests, self._tokens))
        seconds = sum(gather_object([self._seconds]))
        if rank:
            return
        log_metrics(seconds, tokens, tokens / max(seconds, 1e-9), {"requests_without_answer": len(failed)})
        if failed:
            named = "".join(f"\n  task {task}, row {row}: {error}" for task, row, error in failed[:MAX_NAMED])
            more = f"\n  and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
            logger.error(f"{len(failed)} of {requests} requests have no answer and count as wrong:{named}{more}")

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()
