"""What a killed run had answered, out of its sample log.

lmms-eval 0.7.3 keeps nothing of a run before its last request: its response cache is written after all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.eval.lmms.generation import sampling_options
from tam_plugin.eval.lmms.requests import Request
from tam_plugin.eval.lmms.sample_log import read_log
from tam_plugin.storage import values_sha256

_DIGITS = 16


class Earlier:
    """Records of a log, by request.

    Args:
        log: the sample log that is resumed; None, or a file that is not there, holds nothing.
        evaluation: what tells weights, policy, Inductor and settings from others.

    Raises:
        ConfigError: the log is of another evaluation.
        InputError: it is no sample log.
    """

    def __init__(self, log: str | None, evaluation: Any) -> None:
        self.evaluation = values_sha256(evaluation)[:_DIGITS]
        self._records: dict[str, dict[str, Any]] = {}
        if log is None or not (path := Path(log).expanduser()).exists():
            return
        for record in read_log(path):
            if record.get("evaluation") != self.evaluation:
                raise ConfigError(
                    f"model_args: log = {log!r} belongs to an evaluation with other weights, policy, Inductor or "
                    f"arguments (task {record['task']}, row {record['doc_id']}): resume with the same ones, "
                    "or name a new file"
                )
            if record.get("error") is None:
                self._records[str(record.get("request"))] = record

    def marks(self, request: Request) -> dict[str, str]:
        """What a request's record is known by."""
        return {"evaluation": self.evaluation, "request": _key(request)}

    def find(self, request: Request) -> dict[str, Any] | None:
        """The record of exactly this request, if it had an answer; sampled answers are drawn again."""
        if request.continuation is None and sampling_options(request.generation)["do_sample"]:
            return None
        return self._records.get(_key(request))


def _key(request: Request) -> str:
    return values_sha256([*map(str, request.key), dict(request.generation)])[:_DIGITS]
