"""What the two models share: requests in, responses out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lmms_eval.api.model import lmms
from loguru import logger
from tqdm import tqdm

from tam_plugin.errors import InputError
from tam_plugin.eval.ablations import apply_to_model, controlled, find
from tam_plugin.eval.lmms import harness
from tam_plugin.eval.lmms.decisions import Decided, RequestDecider
from tam_plugin.eval.lmms.fingerprints import evaluation_fingerprint
from tam_plugin.eval.lmms.generation import sampling_options
from tam_plugin.eval.lmms.requests import Request, batches, read_request
from tam_plugin.eval.lmms.responses import from_record, with_answer, without_answer
from tam_plugin.eval.lmms.resume import Earlier
from tam_plugin.eval.lmms.routing_log import RoutingLog
from tam_plugin.eval.lmms.sample_log import SampleLog
from tam_plugin.eval.lmms.settings import Settings
from tam_plugin.eval.lmms.tally import Tally
from tam_plugin.patches.hosts.model import Answered, HostModel
from tam_plugin.storage import values_sha256


class TamModel(lmms):
    """Base of the models that lmms-eval knows; a subclass loads its host.

    Args:
        **arguments: ``--model_args`` and what lmms-eval adds to them, see :class:`Settings`.

    Raises:
        ConfigError: an argument, the policy or the checkpoint cannot be used.
        InputError: something cannot be read.
    """

    settings_class: type[Settings] = Settings

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        self.settings = self.settings_class.from_arguments(arguments)
        from accelerate import Accelerator

        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.host_model = self.load(self.settings)
        self.ablation = None if self.settings.ablation is None else find(self.settings.ablation)
        if self.ablation is not None:
            apply_to_model(self.ablation, self.host_model.model)
            logger.warning(f"ablation {self.ablation.name}: {self.ablation.table}, {self.ablation.row!r}")
        self.decider = RequestDecider(self.settings, self.host_model)
        self.fingerprint = evaluation_fingerprint(
            self.host_model.weights, self.decider.policy, self.decider.inductor_name
        )
        if self.ablation is not None:
            self.fingerprint["ablation"] = [self.ablation.settings(), self.settings.ablation_seed]
        harness.attach(self.settings.prompts_of, self.fingerprint)
        alike = dataclasses.replace(self.settings, log=None, routing=None, batch_size=1)
        self._earlier = Earlier(self.settings.log, [type(self).__name__, str(alike), self.fingerprint])
        self._tally = Tally(SampleLog(self.settings.log, self._rank) if self.settings.log else None)
        self._routing = (
            RoutingLog(self.settings.routing, self._rank, self.host_model.tower) if self.settings.routing else None
        )

    def load(self, settings: Any) -> HostModel:
        """Load the checkpoint."""
        raise NotImplementedError

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.host_model.device

    @property
    def cache_name(self) -> str:
        """What tells this instance from others in the response cache; lmms-eval itself would take its address."""
        settings = dataclasses.replace(self.settings, log=None, routing=None)
        return f"{type(self).__name__}|{settings}|{values_sha256(self.fingerprint)}"

    @property
    def batch_size(self) -> int:
        """Requests that are computed together."""
        return self.settings.batch_size

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """One answer per request."""
        return self._run(requests, self._generate)

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Loss and greediness of one continuation per request.

        The loss is the mean negative log-likelihood per token, over the continuation and what ends the turn, as the
        baseline gives it and lmms-eval's tasks compare it (the least one wins).
        """
        return self._run(requests, lambda decided, _: self.host_model.score([d.row for d in decided]))

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """Not supported, as in the baseline."""
        raise NotImplementedError("TAM models answer one round per video; choose a task with one round")

    def clean(self) -> None:
        """Called by lmms-eval after the last request: say what failed, and put it into the results."""
        self._tally.report(self._rank)
        for file in (self._tally, self._routing):
            if file is not None:
                file.close()
        self.host_model = self.decider = None  # type: ignore[assignment]
        super().clean()

    def _generate(self, decided: Sequence[Decided], request: Request) -> list[Answered]:
        return self.host_model.generate([d.row for d in decided], sampling_options(request.generation))

    def _run(self, instances: Sequence[Any], compute: Callable) -> list[Any]:
        requests = [read_request(instance, self.task_dict) for instance in instances]
        padding = [bool((i.metadata or {}).get("__padding_only__")) for i in instances]
        asked = [n for n, is_padding in enumerate(padding) if not is_padding]
        responses: list[Any] = [None] * len(requests)
        by_key: dict[Any, Any] = {}
        known = {n: record for n in asked if (record := self._earlier.find(requests[n])) is not None}
        for number, record in known.items():
            responses[number] = by_key[requests[number].key] = from_record(record)
            self._tally.count(record, is_new=False)
        if known:
            logger.info(f"{self.settings.log}: {len(known)} of {len(asked)} requests were answered by an earlier run")
            asked = [n for n in asked if n not in known]
        bar = tqdm(total=len(asked), desc="TAM", disable=True if self._rank else None)
        for batch in batches(requests, asked, self.batch_size):
            answers = self._answer([requests[n] for n in batch], compute)
            for number, response in zip(batch, answers, strict=True):
                responses[number] = by_key[requests[number].key] = response
            bar.update(len(batch))
        bar.close()
        # lmms-eval evens out processes by asking the last request again; its answer would also be cached.
        for number, is_padding in enumerate(padding):
            if is_padding:
                responses[number] = by_key[requests[number].key]
        return responses

    def _answer(self, requests: Sequence[Request], compute: Callable) -> list[Any]:
        records: list[dict[str, Any]] = []
        decided: list[Decided | None] = []
        for request in requests:
            started = time.perf_counter()
            ready, record = self._decide(request)
            record["seconds"] = time.perf_counter() - started
            records.append(record)
            decided.append(ready)
        ready_ones = [d for d in decided if d is not None]
        started = time.perf_counter()
        with self._ablated(ready_ones, requests[0]):
            answers = iter(self._computed(compute, ready_ones, requests[0], records) if ready_ones else ())
        share_s = (time.perf_counter() - started) / max(1, len(ready_ones))
        responses = []
        for request, one, record in zip(requests, decided, records, strict=True):
            response = without_answer(request, record["error"])
            if one is not None:
                response = with_answer(record, next(answers), share_s)
            self._tally.count(record)
            responses.append(response)
        return responses

    def _computed(
        self, compute: Callable, ready: Sequence[Decided], request: Request, records: Sequence[dict[str, Any]]
    ) -> list[Answered]:
        if self._routing is None:
            return compute(ready, request)
        with self._routing.listening([record for record in records if record["error"] is None]):
            return compute(ready, request)

    def _ablated(self, ready: Sequence[Decided], request: Request) -> AbstractContextManager[None]:
        """What the ablation, if there is one, needs to know of a batch; its draws depend on the request alone."""
        tasks, frames = [one.row.budget.decided_task for one in ready], [len(one.row.video) for one in ready]
        seed = [self.settings.ablation_seed, *map(str, request.key)]
        return controlled(self.ablation, self.host_model.model, tasks, frames, seed)

    def _decide(self, request: Request) -> tuple[Decided | None, dict[str, Any]]:
        record: dict[str, Any] = {
            "task": request.task,
            "split": request.split,
            "doc_id": request.doc_id,
            "index": request.index,
            "continuation": request.continuation,
            "error": None,
            "ablation": self.settings.ablation,
            **self._earlier.marks(request),
        }
        room = sampling_options(request.generation)["max_new_tokens"] if request.continuation is None else 0
        try:
            decided = self.decider.decide(request, room or self.host_model.count_tokens(request.continuation or ""))
        except InputError as error:  # this request's own; anything else would meet the next one too
            return None, {**record, "error": str(error)}
        return decided, {**record, **decided.record()}
