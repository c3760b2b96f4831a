"""Servers that mean harm or are merely odd: memory and time stay bounded, and no answer that was paid for is lost."""

from __future__ import annotations

import functools
import gzip
import json
import signal
import zlib
from collections.abc import Iterator

import pytest

from tests.inductor_tagging.conftest import make_rows, read, write
from tests.inductor_tagging.server import ChatServer, http

ARGV = ("in.jsonl", "--out", "out.jsonl", "--model", "r1", "--retry-wait", "0.01")
MEMORY_BYTES = 640 << 20
"""Address space of the client; it takes some 300 MB of it for a run of nothing but good answers."""


@functools.cache
def bomb() -> bytes:
    """A gigabyte of blanks, packed."""
    stream = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    return b"".join(stream.compress(b" " * (1 << 20)) for _ in range(1 << 10)) + stream.flush()


def raw_deflate(body: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def chunked_forever() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


def unannounced_forever() -> Iterator[bytes]:
    yield b"HTTP/1.1 500 X\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"")[:10]
    empty_block = b"\x00\x00\x00\xff\xff" * 0x2000
    while True:
        yield empty_block  # which unpack to nothing


LARGE = {
    "a gzip bomb": lambda: http(200, bomb(), {"Content-Encoding": "gzip"}),
    "gzip of gzip": lambda: http(200, gzip.compress(bomb()), {"Content-Encoding": "gzip, gzip"}),
    "a bomb that is refused": lambda: http(400, bomb(), {"Content-Encoding": "gzip"}),
    "a plain body": lambda: http(200, b" " * (64 << 20)),
    "a length of a terabyte": lambda: (piece for piece in (http(200, b" ", length=1 << 40), b" " * (5 << 20))),
    "no end, in chunks": chunked_forever,
    "no end, packed": unannounced_forever,
    "a header without end": lambda: (b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * (1 << 20)] * 64),
}


@pytest.mark.parametrize("answer", LARGE.values(), ids=LARGE)
def test_a_large_reply_is_left_in_bounded_memory(tmp_path, start, answer):
    write(tmp_path / "in.jsonl", make_rows(8, [""]))
    answers = answer() if isinstance(answer(), bytes) else None
    with ChatServer(plain=lambda head: answers or answer()) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--concurrency", "4", "--max-attempts", "2", "--timeout", "20")
        process = start(*argv, memory_bytes=MEMORY_BYTES)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and err.count("\n") == 1 and "queries in a row got no answer" in err
        assert len(server.heads) <= 16
    assert (tmp_path / "out.jsonl.answers.jsonl").read_text().count("\n") == 1


def test_a_reply_that_drips_ends_at_the_deadline(tmp_path, tam):
    def drip(head: str) -> Iterator[bytes | float]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"
        while True:
            yield from (b" ", 0.02)

    write(tmp_path / "in.jsonl", make_rows(1, [""]))
    with ChatServer(plain=drip) as server:
        code, _ = tam("tag", *ARGV, "--base-url", server.url, "--timeout", "0.5", "--max-attempts", "1")
    (aside,) = read(tmp_path / "out.jsonl.rejected.jsonl")
    assert code == 2 and "no answer within 0.5 s (--timeout)" in aside["reason"]


ODD = {
    "charset of bytes": lambda body: http(200, body, {"Content-Type": "application/json; charset=zip"}),
    "no such charset": lambda body: http(200, body, {"Content-Type": "application/json; charset=\xfc-8;;"}),
    "called a page": lambda body: http(200, body, {"Content-Type": "text/html; charset=utf-16"}),
    "Western letters": lambda body: http(
        200, body.replace(b'"usage"', b'"\xe9", "usage"').replace(b'"\xe9",', b'"caf\xe9": 1,'), {"Content-Type": "a"}
    ),
    "UTF-16": lambda body: http(200, body.decode().encode("utf-16"), {}),
    "a mark of byte order": lambda body: http(200, b"\xef\xbb\xbf" + body, {}),
    "gzip": lambda body: http(200, gzip.compress(body), {"Content-Encoding": "GZIP"}),
    "deflate": lambda body: http(200, zlib.compress(body), {"Content-Encoding": "deflate"}),
    "bare deflate": lambda body: http(200, raw_deflate(body), {"Content-Encoding": "deflate"}),
    "bare deflate, byte by byte": lambda body: (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in raw_deflate(body))
        + b"0\r\n\r\n"
    ),
    "an unknown encoding": lambda body: http(200, body, {"Content-Encoding": "utf-8"}),
    "many requests left": lambda body: http(
        200, body, {"x-ratelimit-remaining-requests": "9" * 5000, "x-ratelimit-reset-requests": "1s"}
    ),
    "a reset that is no number": lambda body: http(
        200, body, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 400 + "s"}
    ),
    "a wait beside an answer": lambda body: http(200, body, {"Retry-After": "9" * 5000}),
    "values that are no ASCII": lambda body: http(200, body, {"X-E": "\x80\xff", "Retry-After": "\u0663"}),
    "cookies": lambda body: http(200, body, {"Set-Cookie": f"a={'b' * 5000}; Domain=127.0.0.1; Max-Age=\u0663"}),
    "a status nobody knows": lambda body: http(299, body, {}),
    "an integer of 6000 digits": lambda body: http(200, b'{"n": ' + b"7" * 6000 + b", " + body[1:], {}),
    "a finish reason of a kind of its own": lambda body: http(200, body.replace(b'"stop"', b'{"a": ["stop"]}'), {}),
}


@pytest.mark.parametrize("wrap", ODD.values(), ids=ODD)
def test_odd_replies_are_answers_all_the_same(tmp_path, tam, wrap):
    write(tmp_path / "in.jsonl", make_rows(6, [""]))
    with ChatServer(wrap=wrap) as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url, "--concurrency", "2")
        assert code == 0 and "6 of 6 queries" in err, err
        assert sorted(server.asked) == sorted(f"q{i}" for i in range(6))
        assert not any("cookie" in head.lower() for head in server.heads)


@pytest.mark.parametrize(
    "wait", ["9" * 5000, "1e999", "-5", "soon", "\u0663\u0663nonsense", "Fri, 31 Dec 9999 23:59:59 GMT", ""]
)
def test_odd_waits_do_not_end_a_run(tmp_path, tam, wait):
    write(tmp_path / "in.jsonl", make_rows(6, [""]))
    refusals = iter([http(429, b"slow down", {"Retry-After": wait})] * 3)
    with ChatServer(wrap=lambda body: next(refusals, http(200, body))) as server:
        code, err = tam("tag", *ARGV, "--base-url", server.url, "--concurrency", "2")
        assert code == 0 and "6 of 6 queries" in err and len(server.asked) == 9


COUNTS = ["-1", "1e18", "12.5", "12.0", "true", '"12"', "NaN", "null", "10000001", "9" * 30, "9" * 6000, "[1]"]


@pytest.mark.parametrize(
    ("name", "count"), list(zip(["prompt_tokens", "completion_tokens"] * 6, COUNTS, strict=True)), ids=range(12)
)
def test_counts_that_cannot_be_right_are_not_stored(tmp_path, tam, name, count):
    write(tmp_path / "in.jsonl", make_rows(4, [""]))

    def wrap(body: bytes) -> bytes:
        values = json.loads(body)
        if "q2" not in server.asked[-1]:
            return http(200, body)
        return http(200, body.replace(f'"{name}": {values["usage"][name]}'.encode(), f'"{name}": {count}'.encode()))

    prices = ("--price-in", "1", "--price-out", "1", "--concurrency", "1")
    with ChatServer(wrap=wrap) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, *prices, "--max-cost", "1")
        code, err = tam(*argv)
        assert code == 0 and "(not known of 1 answer)" in err, err
        answers = read(tmp_path / "out.jsonl.answers.jsonl")[1:]
        assert [answer[name] is None for answer in answers] == [False, False, True, False]
        known = [a["prompt_tokens"] + a["completion_tokens"] for a in answers if a[name] is not None]
        assert f"cost {sum(known) / 1e6 * 4 / 3:.4g}\n" in err
        assert tam(*argv) == (0, err) and len(server.asked) == 4


def test_a_limit_of_cost_needs_a_server_that_counts(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(9, [""]))
    with ChatServer(wrap=lambda body: http(200, body.replace(b'"usage"', b'"use"'))) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--price-in", "1", "--concurrency", "1")
        for _ in range(2):
            code, err = tam(*argv, "--max-cost", "1")
            assert code == 2 and err.count("\n") == 1 and "--max-cost cannot be kept" in err
            assert len(server.asked) == 1
        assert tam(*argv)[0] == 0 and len(server.asked) == 9


@pytest.mark.parametrize("absurd", ["-7", "1" + "0" * 400, "9" * 6000, "1e300", "true"], ids=range(5))
def test_a_store_with_absurd_counts_is_used(tmp_path, tam, absurd):
    write(tmp_path / "in.jsonl", make_rows(6, [""]))
    store = tmp_path / "out.jsonl.answers.jsonl"
    with ChatServer() as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--price-in", "1", "--price-out", "1", "--max-cost", "1")
        assert tam(*argv, "--limit", "4")[0] == 0
        lines = store.read_text().splitlines()
        count = f'"prompt_tokens": {json.loads(lines[2])["prompt_tokens"]}'
        assert count in lines[2]
        store.write_text(
            "\n".join([*lines[:2], lines[2].replace(count, f'"prompt_tokens": {absurd}'), *lines[3:]]) + "\n"
        )
        code, err = tam(*argv)
        assert code == 0 and "6 of 6 queries" in err and len(server.asked) == 6
        notes = [line for line in err.splitlines() if line.startswith("tam: note:")]
        assert (
            err.count("\n") == 2
            and len(notes) == 1
            and "1 token counts that cannot be right" in notes[0]
            and str(store.name) in err
        )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_process_keep_what_is_under_way(tmp_path, start, tam, number):
    write(tmp_path / "in.jsonl", make_rows(400, [""]))
    with ChatServer(delay_s=0.05) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--concurrency", "4")
        process = start(*argv)
        server.wait_until(lambda: len(server.sent) >= 10)
        process.send_signal(number)
        assert "under way" in process.stderr.readline()
        process.send_signal(number)  # timeout(1) sends it twice
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130 and "the same command goes on" in err and "Traceback" not in err
        assert len(server.sent) == len(read(tmp_path / "out.jsonl.answers.jsonl")) - 1 == len(server.asked) < 400
        assert tam(*argv)[0] == 0 and len(server.asked) == 400


def test_a_fault_that_ends_the_run_keeps_what_is_under_way(tmp_path, tam):
    write(tmp_path / "in.jsonl", make_rows(30, [""]))

    refused: list[bool] = []

    def wrap(body: bytes) -> bytes:
        if "q7" not in server.asked or refused:
            return http(200, body)
        refused.append(True)
        return http(401, b"no more")

    # The seventh is refused at once, while three wait for their answers.
    with ChatServer(wrap=wrap, fault=lambda name, _: None if name == "q7" else "slow", slow_s=0.3) as server:
        argv = ("tag", *ARGV, "--base-url", server.url, "--concurrency", "4")
        code, err = tam(*argv)
        assert code == 2 and err.count("\n") == 1 and "HTTP 401: no more" in err
        asked = len(server.asked)
        assert len(read(tmp_path / "out.jsonl.answers.jsonl")) - 1 == asked - 1 == 7
        assert tam(*argv)[0] == 0 and len(server.asked) == 31


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(tmp_path, tam, status):
    write(tmp_path / "in.jsonl", make_rows(3, [""]))
    with ChatServer() as other:
        away = http(status, b"", {"Location": f"{other.url}/chat/completions"})
        with ChatServer(plain=lambda head: away) as server:
            code, err = tam("tag", *ARGV, "--base-url", server.url)
        assert code == 2 and f"sends on to {other.url}" in err
        assert other.heads == [] and len(server.heads) <= 3


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_no_proxy_sees_a_request_in_the_clear(tmp_path, start, variable):
    write(tmp_path / "in.jsonl", make_rows(3, [""]))
    with ChatServer() as proxy, ChatServer() as server:
        process = start("tag", *ARGV, "--base-url", server.url, **{variable: proxy.url.removesuffix("/v1")})
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert proxy.heads == [] and len(server.heads) == 3


def test_a_proxy_that_cannot_be_used_is_one_clear_error(tmp_path, start):
    write(tmp_path / "in.jsonl", make_rows(1, [""]))
    process = start("tag", *ARGV, "--base-url", "https://127.0.0.1:9/v1", ALL_PROXY="gopher://127.0.0.1:9")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and err.count("\n") == 1 and "HTTPS_PROXY, ALL_PROXY" in err


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_what_a_server_says_reaches_no_terminal_raw(tmp_path, tam, status):
    said = "\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\x00" + "long " * 1000
    for body in (json.dumps({"error": {"message": said}}).encode(), said.encode()):
        write(tmp_path / "in.jsonl", make_rows(40, [""]))
        with ChatServer(plain=lambda head, body=body: http(status, body)) as server:
            code, err = tam("tag", *ARGV, "--base-url", server.url, "--max-attempts", "1", "--restart")
        assert code == 2 and err.count("\n") == 1 and err.rstrip("\n").isprintable() and len(err) < 700
        assert "\\x1b" in err
