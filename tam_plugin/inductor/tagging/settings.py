"""Where the chat endpoint is, what is asked of it and how hard; the key, which appears in nothing that is written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tam_plugin.errors import InputError
from tam_plugin.inductor.tagging.spending import MAX_TOKENS

_OWN = ("model", "messages", "stream", "n")
_SECRET_CHARS = 8
"""A shorter key is a placeholder of a local server and may occur in any text."""


def read_key(variable: str) -> str:
    """The API key in an environment variable.

    Raises:
        InputError: it is not set, or holds what no header can carry; the message never shows it.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(
            f"the environment variable {variable} holds no API key; set it, name another with --api-key-env, "
            "or say --no-key for a server that wants none"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(f"the API key in {variable} has a blank or a character that is not ASCII; set it anew")
    return key


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """A chat endpoint and how it is used.

    Attributes:
        base_url: up to ``/v1``, without ``/chat/completions``.
        model: as the server names it.
        key: the API key, or None for a server that wants none.
        temperature: None leaves it to the server, and so does ``max_tokens``.
        extra_body: further entries of each request.
        concurrency: requests under way at once.
        requests_per_minute: None for no limit but the server's.
        timeout_s: for one whole answer.
        max_attempts: requests for one answer until the query is left for the next run.
        retry_wait_s: the first wait after a fault; it is doubled each time.

    Raises:
        InputError: a value out of range; the message names the command's option.
    """

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    temperature: float | None = None
    max_tokens: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int = 16
    requests_per_minute: float | None = None
    timeout_s: float = 600.0
    max_attempts: int = 8
    retry_wait_s: float = 1.0

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        if not self.model.strip():
            raise InputError("--model is empty; expected a model's name as the server knows it")
        _check("--temperature", self.temperature, 0, 2)
        _check("--max-tokens", self.max_tokens, 1, MAX_TOKENS)
        _check("--concurrency", self.concurrency, 1, 1024)
        _check("--requests-per-minute", self.requests_per_minute, 1e-3, 1e6)
        _check("--timeout", self.timeout_s, 1e-3, 86400)
        _check("--max-attempts", self.max_attempts, 1, 1000)
        _check("--retry-wait", self.retry_wait_s, 0, 600)
        taken = [name for name in _OWN if name in self.extra_body]
        if taken:
            raise InputError(f"--extra-body sets {', '.join(taken)}, which the command sets itself; leave it out")
        if self.redact(json.dumps(dict(self.extra_body))) != json.dumps(dict(self.extra_body)):
            raise InputError("--extra-body holds the API key, and it is kept beside the answers; leave it out")

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def body(self, messages: list[dict[str, str]]) -> dict[str, Any]:
        """One request."""
        values: dict[str, Any] = {"model": self.model, "messages": messages}
        if self.temperature is not None:
            values["temperature"] = self.temperature
        if self.max_tokens is not None:
            values["max_tokens"] = self.max_tokens
        return {**values, **self.extra_body}

    def redact(self, text: str) -> str:
        """The text without the key, for servers that send back what they were sent."""
        if self.key is None or len(self.key) < _SECRET_CHARS:
            return text
        return text.replace(self.key, "[key]").replace(json.dumps(self.key)[1:-1], "[key]")


def _check(option: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InputError(f"{option} {value:g}: expected a number from {low:g} to {high:g}")


def _check_url(url: str) -> None:
    expected = "expected an address such as http://127.0.0.1:8000/v1"
    if "@" in url:
        raise InputError(f"--base-url holds a user's name or password, which would be shown; {expected}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"--base-url {url!r}: {error}; {expected}") from None
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or not url.isprintable():
        raise InputError(f"--base-url {url!r}: {expected}")
    if parts.path.rstrip("/").endswith("/completions"):
        raise InputError(f"--base-url {url!r}: leave out what follows /v1; {expected}")
