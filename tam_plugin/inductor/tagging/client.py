"""A client of an OpenAI-compatible chat endpoint that gets an answer through faults, or says clearly why not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tam_plugin.errors import InputError, one_line, require
from tam_plugin.inductor.tagging.exchange import BodyError, RawReply, open_client, post
from tam_plugin.inductor.tagging.prompts import Messages
from tam_plugin.inductor.tagging.replies import Reply
from tam_plugin.inductor.tagging.settings import ChatSettings
from tam_plugin.inductor.tagging.spending import token_count
from tam_plugin.inductor.tagging.waiting import LONGEST_PAUSE_S, Pacer, backoff_s, retry_after_s

_RETRIED = frozenset({408, 409, 425, 429})
_ALL_ALIKE = frozenset({401, 402, 403, 404, 405})
"""Statuses that every other request would get as well."""
_HOPELESS = 3
"""So often one query may find a web page, or no server at all, until the address is taken for wrong."""
_NO_JSON = object()


_LONGEST_MESSAGE = 200


class NoAnswerError(Exception):
    """One query got no answer; others may."""


@dataclass(frozen=True)
class Completion:
    """An answer and what it cost; tokens are None where the server gives no number that can be right."""

    reply: Reply
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True)
class _Trouble:
    """A failed attempt; ``kind`` is ``"page"``, ``"absent"`` or ``"other"``."""

    reason: str
    kind: str = "other"
    wait_s: float | None = None


class ChatClient:
    """Asks, waits, asks again. An asynchronous context manager.

    Args:
        settings: where and what.
        pacer: shared by all requests.
    """

    def __init__(self, settings: ChatSettings, pacer: Pacer) -> None:
        self._httpx = require("httpx", needed_for="a chat endpoint", extra="tagging")
        self._settings, self._pacer = settings, pacer
        self._rng = random.Random()
        self._server_seen = False
        self._completions = 0
        self._http = open_client(settings)

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def complete(self, messages: Messages, may_ask: Callable[[], None]) -> Completion:
        """Get one answer.

        Args:
            messages: what is sent.
            may_ask: called before each request; what it raises ends the attempts.

        Raises:
            NoAnswerError: this query cannot be answered now.
            InputError: no query can be: the address, the key or the model is wrong.
            Stopped: the pacer was stopped.
        """
        body = json.dumps(self._settings.body(messages)).encode()
        counts = {"page": 0, "absent": 0, "other": 0}
        reason, completions = "", self._completions
        for attempt in range(1, self._settings.max_attempts + 1):
            outcome = await self._attempt(body, may_ask)
            if isinstance(outcome, Completion):
                self._completions += 1
                return outcome
            if completions != self._completions:
                # Other queries are answered, so the address is right.
                completions, counts["page"] = self._completions, 0
            reason = outcome.reason
            counts[outcome.kind] += 1
            self._give_up_early(outcome, counts)
            if attempt < self._settings.max_attempts:
                wait_s = backoff_s(attempt, self._settings.retry_wait_s, self._rng)
                await self._pacer.sleep(max(wait_s, outcome.wait_s or 0.0))
        raise NoAnswerError(f"no answer after {attempt} attempt{'s' if attempt > 1 else ''}, the last: {reason}")

    def _give_up_early(self, trouble: _Trouble, counts: dict[str, int]) -> None:
        enough = min(_HOPELESS, self._settings.max_attempts)
        where = self._settings.base_url
        if counts["page"] >= enough:
            raise InputError(
                f"{where} answers with a web page instead of JSON; check --base-url: most servers want it to end in /v1"
            )
        if counts["absent"] >= enough and not self._server_seen:
            raise InputError(f"no server can be reached at {where} ({trouble.reason}); check --base-url and its port")
        if trouble.wait_s is not None and trouble.wait_s > LONGEST_PAUSE_S:
            raise InputError(
                f"{where} asks to wait {trouble.wait_s:.0f} s ({trouble.reason}); run the same command again after that"
            )

    async def _attempt(self, body: bytes, may_ask: Callable[[], None]) -> Completion | _Trouble:
        httpx, timeout_s = self._httpx, self._settings.timeout_s
        await self._pacer.admit()
        headers = None
        try:
            may_ask()
            raw = await asyncio.wait_for(self._exchange(body), timeout_s)
            headers = raw.headers
        except (asyncio.TimeoutError, httpx.TimeoutException):
            return _Trouble(f"no answer within {timeout_s:g} s (--timeout)")
        except BodyError as error:
            self._server_seen = True
            if error.oversized:
                # It was paid for, and the next one would be as large.
                raise NoAnswerError(f"{error}, which is no chat completion; --max-tokens bounds one") from None
            return _Trouble(str(error))
        except httpx.RequestError as error:
            kind = "absent" if isinstance(error, httpx.ConnectError) else "other"
            return _Trouble(self._line(str(error) or type(error).__name__), kind)
        finally:
            self._pacer.release(headers)
        self._server_seen = True
        values = _NO_JSON
        with contextlib.suppress(ValueError, RecursionError):
            values = raw.json()
        if 200 <= raw.status < 300:
            return self._read(raw, values)
        return self._refusal(raw, values)

    async def _exchange(self, body: bytes) -> RawReply:
        try:
            return await post(self._http, self._settings.url, body)
        except (BodyError, self._httpx.RequestError):
            raise
        except Exception as error:  # whatever the HTTP library trips over in a reply, it is this reply that failed
            raise BodyError(self._line(f"a reply that is no HTTP ({type(error).__name__}: {error})")) from error

    def _refusal(self, raw: RawReply, values: Any) -> _Trouble:
        said, code = self._said(raw, values)
        reason = f"HTTP {raw.status}{f': {said}' if said else ''}"
        if raw.status in _ALL_ALIKE or code == "insufficient_quota":
            raise InputError(
                f"{self._settings.url} refuses every request ({reason}); check --base-url (most servers want it to end "
                f"in /v1), --model {self._settings.model!r} and the key"
            )
        if 300 <= raw.status < 400:
            target = self._line(raw.headers.get("location", "elsewhere"))
            raise InputError(f"{self._settings.url} sends on to {target} (HTTP {raw.status}); give that as --base-url")
        if raw.status not in _RETRIED and raw.status < 500:
            raise NoAnswerError(reason)
        wait_s = retry_after_s(raw.headers.get("retry-after"), datetime.now(timezone.utc))
        if wait_s is not None and wait_s <= LONGEST_PAUSE_S:
            self._pacer.pause(wait_s)
        return _Trouble(reason, wait_s=wait_s)

    def _read(self, raw: RawReply, values: Any) -> Completion | _Trouble:
        try:
            choice = values["choices"][0]
            message = choice["message"]
            content = message.get("content")
        except (LookupError, TypeError, AttributeError):
            if values is _NO_JSON and (_is_page(raw) or "text/html" in raw.headers.get("content-type", "")):
                return _Trouble("a web page instead of JSON", "page")
            said, _ = self._said(raw, values)
            return _Trouble(f"an answer that is no chat completion: {said or 'empty'}")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        finish_reason, usage = choice.get("finish_reason"), values.get("usage")
        tokens = usage if isinstance(usage, dict) else {}
        reply = Reply(
            self._settings.redact(content) if isinstance(content, str) else "",
            self._settings.redact(reasoning) if isinstance(reasoning, str) else None,
            self._line(finish_reason) if isinstance(finish_reason, str) and finish_reason else None,
        )
        return Completion(reply, token_count(tokens.get("prompt_tokens")), token_count(tokens.get("completion_tokens")))

    def _said(self, raw: RawReply, values: Any) -> tuple[str, str | None]:
        """The server's own words, on one short line, and its code for the error."""
        if values is _NO_JSON:
            return ("a web page" if _is_page(raw) else self._line(raw.text)), None
        error = values.get("error", values) if isinstance(values, dict) else values
        said, code = error, None
        if isinstance(error, dict):
            said, code = error.get("message") or error.get("detail") or values, error.get("code")
        try:
            text = said if isinstance(said, str) else json.dumps(said)
        except RecursionError:
            text = raw.text
        return self._line(text), code if isinstance(code, str) else None

    def _line(self, text: str) -> str:
        """Another's words: one line, short, and without the key."""
        # The key goes before the cut, which could leave a part of it that is no longer found.
        return one_line(self._settings.redact(text).strip()[: 10 * _LONGEST_MESSAGE])[:_LONGEST_MESSAGE]


def _is_page(raw: RawReply) -> bool:
    return raw.body.lstrip()[:1] == b"<"
