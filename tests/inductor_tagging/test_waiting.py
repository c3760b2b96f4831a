"""Waits: what servers say in headers, the bounds of the back-off, and how requests are let out."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin.inductor.tagging.waiting import Pacer, Stopped, backoff_s, reset_s, retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("Fri, 02 Jan 2026 03:05:30 GMT", 90.0),
        ("Friday, 02-Jan-26 03:05:30 GMT", 90.0),
        ("Fri, 02 Jan 2026 05:05:30 +0200", 90.0),
        ("Fri, 02 Jan 2026 03:00:00 GMT", 0.0),
        ("-3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Fri, 99 Jan 2026", None),
        ("1m30s", 90.0),
        ("2678400", 2678400.0),
        ("2678401", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -9999", None),
        ("9" * 5000, None),
        ("1" * 100_000 + "h", None),
        ("Fri, " * 30_000, None),
        ("\u0663", 3.0),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after_s(value, NOW) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("12", 12.0),
        ("1m20ms", 60.02),
        ("", None),
        ("later", None),
        ("s", None),
        ("-1s", None),
    ],
)
def test_reset(value, seconds):
    assert reset_s(value) == (None if seconds is None else pytest.approx(seconds))


@given(st.integers(1, 10_000), st.just(0.0) | st.floats(1e-6, 600), st.integers())
def test_backoff_doubles_up_to_a_minute(attempt, first_s, seed):
    longest = min(60.0, first_s * 2.0 ** min(attempt - 1, 100))
    assert 0.5 * longest <= backoff_s(attempt, first_s, random.Random(seed)) <= longest


def admitted_within(pacer: Pacer, wait_s: float) -> bool:
    async def admit() -> bool:
        try:
            await asyncio.wait_for(pacer.admit(), wait_s)
        except asyncio.TimeoutError:
            return False
        return True

    return asyncio.get_event_loop().run_until_complete(admit())


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def left(count: int | str, reset: str = "10s") -> dict[str, str]:
    return {"x-ratelimit-remaining-requests": str(count), "x-ratelimit-reset-requests": reset}


def in_loop(loop, action) -> None:
    async def do() -> None:
        action()

    loop.run_until_complete(do())


def test_what_the_server_has_left_is_not_exceeded(loop):
    pacer = Pacer()
    assert all(admitted_within(pacer, 1) for _ in range(3))
    in_loop(loop, lambda: pacer.release(left(4)))  # two are under way and perhaps not counted: two are left
    assert [admitted_within(pacer, 0.01) for _ in range(3)] == [True, True, False]
    for _ in range(4):
        in_loop(loop, lambda: pacer.release(None))
    assert pacer.in_flight == 0 and not admitted_within(pacer, 0.01)


def test_the_last_answer_under_way_is_exact(loop):
    pacer = Pacer()
    assert admitted_within(pacer, 1) and admitted_within(pacer, 1)
    in_loop(loop, lambda: pacer.release(left(1)))
    assert not admitted_within(pacer, 0.01)
    in_loop(loop, lambda: pacer.release(left(1)))
    assert [admitted_within(pacer, 0.01) for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    "headers",
    [
        *(left(0, "0.01s"), left(0, "5h"), left(0, "tomorrow"), left(0, "9" * 400 + "h"), {}, None),
        *(left(count) for count in ("", "9" * 5000, "-1", "1e3", "nan", "\u0663", "none")),
    ],
)
def test_a_reset_that_is_near_or_not_believed_holds_nobody_up(loop, headers):
    pacer = Pacer()
    assert admitted_within(pacer, 1)
    in_loop(loop, lambda: pacer.release(headers))
    assert admitted_within(pacer, 5)


def test_a_pause_holds_everybody(loop):
    pacer = Pacer()
    in_loop(loop, lambda: pacer.pause(30))
    in_loop(loop, lambda: pacer.pause(0))
    assert not admitted_within(pacer, 0.01)


def test_requests_a_minute_are_spread(loop):
    pacer = Pacer(6)
    assert admitted_within(pacer, 1) and not admitted_within(pacer, 0.01)


def test_a_stop_ends_all_waits(loop):
    async def check() -> list[object]:
        pacer = Pacer()
        pacer.pause(3600)
        waits = [asyncio.create_task(w) for w in (pacer.admit(), pacer.admit(), pacer.sleep(3600))]
        await asyncio.sleep(0)
        pacer.stop()
        return await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 5)

    assert [type(end) for end in loop.run_until_complete(check())] == [Stopped] * 3
