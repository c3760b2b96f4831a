"""Responses in the forms that lmms-eval takes, from what was computed now or by a run before."""

from __future__ import annotations

from typing import Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from tam_plugin.eval.lmms.requests import Request
from tam_plugin.eval.lmms.results import LogLikelihood, NoAnswer
from tam_plugin.patches.hosts.model import Answered


def without_answer(request: Request, reason: str | None) -> Any:
    """The response of a request that failed: never an answer, never the best continuation."""
    if request.continuation is None:
        return NoAnswer(str(reason))
    return GenerationResult(LogLikelihood(request.losing_loss(), False))


def with_answer(record: dict[str, Any], answered: Answered, share_s: float) -> GenerationResult:
    """The response of a request that was computed; ``record`` is filled up."""
    record["seconds"] += share_s
    record.update(
        prompt_tokens=answered.prompt_tokens,
        visual_tokens=answered.visual_tokens,
        output_tokens=answered.output_tokens,
        response=answered.text if answered.loss is None else [answered.loss, bool(answered.is_greedy)],
    )
    return from_record(record)


def from_record(record: dict[str, Any]) -> GenerationResult:
    """The response that a line of the sample log tells of."""
    response = record["response"]
    counts = TokenCounts(input_tokens=record["prompt_tokens"], output_tokens=record["output_tokens"])
    return GenerationResult(response if isinstance(response, str) else LogLikelihood(*response), counts)
