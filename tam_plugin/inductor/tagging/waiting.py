"""When the next request may go out: back-off, what the server says of its limits, requests a minute, and the stop."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

LONGEST_BACKOFF_S = 60.0
"""The doubling of waits ends here."""
LONGEST_PAUSE_S = 900.0
"""A server that asks for more than this is not waited for: its answers are at hand on the next run."""
LONGEST_BELIEVED_S = 31 * 86400.0
"""No server means more than this."""
_LONGEST_HEADER = 64

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


class Stopped(Exception):
    """No new request shall go out."""


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a ``Retry-After`` header: a number of seconds, a duration such as ``"1m30s"``, or a date.

    None where it says none of them, or more than a month.

    Args:
        value: the header, or None.
        now: the time now, with a time zone.
    """
    seconds = reset_s(value)
    if seconds is None and value is not None and len(value) <= _LONGEST_HEADER:
        try:
            date = parsedate_to_datetime(value)
            if date.tzinfo is None:
                date = date.replace(tzinfo=timezone.utc)
            seconds = max(0.0, (date - now).total_seconds())
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return seconds if seconds is not None and seconds <= LONGEST_BELIEVED_S else None


def reset_s(value: str | None) -> float | None:
    """Seconds of an ``x-ratelimit-reset-requests`` header: ``"6m0s"``, ``"20ms"``, ``"1.5"``; else None."""
    if value is None or len(value) > _LONGEST_HEADER:
        return None
    try:
        seconds = float(value)
    except ValueError:
        match = _DURATION.fullmatch(value.strip())
        if not match or not any(match.groups()):
            return None
        parts = zip(match.groups(), (3600.0, 60.0, 1.0, 0.001), strict=True)
        seconds = sum(float(number) * unit for number, unit in parts if number)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _requests_left(value: str | None) -> int | None:
    """The number in an ``x-ratelimit-remaining-requests`` header, or None where it is none."""
    text = (value or "").strip()
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _LONGEST_HEADER else None


def backoff_s(attempt: int, first_s: float, rng: random.Random) -> float:
    """The wait after failed attempt ``attempt`` (1, 2, ...): doubled each time up to a minute, then halved at most."""
    longest = min(LONGEST_BACKOFF_S, first_s * 2.0 ** min(attempt - 1, 60))
    return longest * rng.uniform(0.5, 1.0)


class Pacer:
    """Lets requests out one by one, as fast as all limits allow.

    A server that says how many requests are left is believed, less those under way, which it may not have counted.

    Args:
        requests_per_minute: spread evenly; None for no limit of our own.
    """

    def __init__(self, requests_per_minute: float | None = None) -> None:
        self.in_flight = 0
        self._gap_s = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next_s = self._paused_until_s = self._reset_at_s = -math.inf
        self._left: int | None = None
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._stop = asyncio.Event()

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let no request out any more and end all waits with :class:`Stopped`."""
        self._stop.set()
        self._changed.set()

    async def admit(self) -> None:
        """Wait until a request may go out, and count it; each must be given back with :meth:`release`.

        Raises:
            Stopped: :meth:`stop` was called.
        """
        async with self._turn:
            while not self.stopped and (wait_s := self._wait_s()) > 0:
                self._changed.clear()
                await _wait(self._changed, wait_s)
            if self.stopped:
                raise Stopped
            self._next_s = _now_s() + self._gap_s
            self.in_flight += 1
            if self._left is not None:
                self._left -= 1

    def release(self, headers: Mapping[str, str] | None) -> None:
        """A request has ended, with these headers of its answer or none."""
        self.in_flight -= 1
        left = _requests_left((headers or {}).get("x-ratelimit-remaining-requests"))
        reset = reset_s((headers or {}).get("x-ratelimit-reset-requests"))
        if left is not None and reset is not None and reset <= LONGEST_PAUSE_S:
            lowest = left - self.in_flight
            # Answers may overtake each other, so the smallest figure holds, unless none is under way.
            self._left = lowest if self._left is None or not self.in_flight else min(self._left, lowest)
            self._reset_at_s = _now_s() + reset
        self._changed.set()

    def pause(self, seconds: float) -> None:
        """Let nothing out for this long."""
        self._paused_until_s = max(self._paused_until_s, _now_s() + seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Stopped: :meth:`stop` was called, before or meanwhile.
        """
        await _wait(self._stop, seconds)
        if self.stopped:
            raise Stopped

    def _wait_s(self) -> float:
        now = _now_s()
        if now >= self._reset_at_s:
            self._left = None
        until = max(self._next_s, self._paused_until_s)
        if self._left is not None and self._left <= 0:
            until = max(until, self._reset_at_s)
        return until - now


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except asyncio.TimeoutError:
        return
