"""``tam data tag`` and ``paraphrase`` against a server on loopback whose replies are hostile or odd.

Each case is a few queries and, for each, the raw replies to its first requests. A reply says what a right client makes
of it: an answer that must be stored with its value, an answer that must be stored as one that cannot be used, nothing,
or (where its bytes were changed at random) either. After the run a second one, against a server that only gives good
answers, must finish the job from what is stored.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unicodedata import category

from tam_plugin.cli.main import main as tam
from tam_plugin.inductor.tagging import paraphrase, tag  # noqa: F401  (before the harness forks)
from tam_plugin.inductor.tagging.client import ChatClient  # noqa: F401
from tam_plugin.taxonomy import TaskType

from ..inductor_tagging.server import ChatServer, http, label_of
from .harness import Limits, Result, Verdict, main, right, wrong

with contextlib.suppress(ImportError):
    import httpx  # noqa: F401
    import tqdm  # noqa: F401

KEY = "sk-Fuzz/0123456789-abcdef"
ELSEWHERE = b"@ELSEWHERE@"
TIMEOUT_S = 3
LABELS = [task.label for task in TaskType]
Piece = bytes | float | tuple[bytes, int]
"""Bytes, seconds to wait, or bytes that are sent so often."""
STORED, USELESS, NOTHING, EITHER = "stored", "stored as useless", "nothing", "either"


class Reply:
    """One scripted reply.

    Args:
        kind: names it in messages.
        pieces: what is sent before the connection is closed.
        becomes: what a right client makes of it.
        tokens: what it may store of ``usage``.
    """

    def __init__(self, kind: str, pieces: list[Piece], becomes: str, tokens: tuple = (None, None)) -> None:
        self.kind, self.pieces, self.becomes, self.tokens = kind, pieces, becomes, tokens

    def dump(self) -> dict[str, Any]:
        """As JSON values."""

        def plain(piece: Piece) -> Any:
            if isinstance(piece, tuple):
                return [base64.b64encode(piece[0]).decode(), piece[1]]
            return base64.b64encode(piece).decode() if isinstance(piece, bytes) else piece

        return {"kind": self.kind, "pieces": [*map(plain, self.pieces)], "becomes": self.becomes, "tokens": self.tokens}


def pieces_of(values: dict[str, Any], elsewhere: bytes) -> Iterator[bytes | float]:
    """The pieces of a dumped reply, as the server sends them."""
    for piece in values["pieces"]:
        if isinstance(piece, float):
            yield piece
            continue
        text, times = piece if isinstance(piece, list) else (piece, 1)
        data = base64.b64decode(text).replace(ELSEWHERE, elsewhere)
        for _ in range(times):
            yield data


# -- bodies -----------------------------------------------------------------------------------------------------------

COUNTS: list[Any] = [-1, 10**18, 12.5, True, "12", None, [1], {"a": 1}, 10**7 + 1, 0, 17, 10**7]


def content(name: str, question: str) -> str:
    """An answer that both jobs take."""
    label = label_of(name)
    values = {"task": LABELS[label - 1], "second": LABELS[label % 8] if label % 2 else None}
    return json.dumps({**values, "paraphrase": f"Put another way, {question}"}, ensure_ascii=False)


def useless_content(rng: random.Random, good: str) -> str:
    """Text that is no answer to either job."""
    return rng.choice(
        [
            "",
            " \n\t",
            "I will not say.",
            "{}",
            good + good,
            good[:-9],
            f"<think>{good}",
            "[" * rng.choice([10, 100_000]),
            '{"task":' * rng.choice([10, 100_000]),
            '{"task": [1], "paraphrase": ["a"]}',
            '{"task": "Cooking", "paraphrase": ""}',
            '{"task": "\ud800", "paraphrase": "\udfff"}',
            '{"task": 1e999, "paraphrase": NaN}',
            "\x1b[2J\x1b]0;owned\x07" + KEY,
            "{" + "".join(f'"{i}":0,' for i in range(rng.choice([3, 100_000]))) + '"0":1}',
        ]
    )


def completion(rng: random.Random, text: str, nonce: str) -> tuple[bytes, tuple[int | None, int | None]]:
    """A chat completion, and the token counts that a right client stores of it."""
    counts = [rng.choice(COUNTS) if rng.random() < 0.3 else rng.randrange(1000) for _ in range(2)]
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning_content": nonce}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    values: dict[str, Any] = {"id": "x", "choices": [choice]}
    usage: Any = {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
    if rng.random() < 0.1:
        usage = rng.choice([None, [], "many", {}, 3])
        counts = [None, None]
    values["usage"] = usage
    if rng.random() < 0.2:
        choice["finish_reason"] = rng.choice([None, 7, {"a": []}, "\x1b[31m" * 100, "length"])
    if rng.random() < 0.2:
        values["more"] = rng.choice([json.loads("[" * 100 + "]" * 100), 10**4000, "é\u2028\x00" * 1000, 1e300])
    # An integer of more digits than Python reads by itself.
    text = json.dumps(values, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.05:
        text = text[:-1] + ', "long": ' + "7" * 6000 + "}"
    usable = [c if type(c) is int and 0 <= c <= 10**7 else None for c in counts]
    return text.encode("utf-8", "surrogatepass"), (usable[0], usable[1])


def odd_headers(rng: random.Random) -> dict[str, str]:
    """Headers that change nothing about an answer."""
    return dict(
        rng.sample(
            [
                ("Content-Type", rng.choice(["application/json; charset=zip", "text/html", "", "a" * 5000, ";;=;"])),
                ("Retry-After", rng.choice(["9" * 5000, "-1", "nan", "soon", "\u0663", "Fri, 99 Jan 2026", "1e400"])),
                ("x-ratelimit-remaining-requests", rng.choice(["9" * 5000, "-1", "", "\u0663", "1e3", "0x10"])),
                ("x-ratelimit-reset-requests", rng.choice(["9" * 400 + "h", "", "ms", "1h" * 9, "-5s", "nan"])),
                ("Set-Cookie", f"a={'b' * rng.choice([1, 5000])}; Domain={rng.choice(['.', '127.0.0.1', '*'])}"),
                ("X-Odd", rng.choice(["\x80\xff", "\u202e", "x" * 20_000, " "])),
                ("Content-Language", "\xe9"),
                ("Link", f"<{ELSEWHERE.decode()}>; rel=preload"),
                ("Refresh", f"0; url={ELSEWHERE.decode()}"),
                ("Alt-Svc", f'h2="{ELSEWHERE.decode()}"'),
            ],
            rng.randrange(5),
        )
    )


def deflated(body: bytes) -> bytes:
    """Bare deflate, as many servers understand the word."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(body) + stream.flush()


def head(status: str, headers: dict[str, str]) -> bytes:
    """Status line and headers, whatever they hold."""
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def dressed(rng: random.Random, body: bytes) -> list[Piece]:
    """A 2xx answer with this body, sent in one of the ways that HTTP allows."""
    headers = odd_headers(rng)
    encode: Callable[[bytes], bytes]
    name, encode = rng.choice(
        [
            *[("", lambda b: b)] * 4,
            ("gzip", gzip.compress),
            ("x-gzip", gzip.compress),
            ("deflate", zlib.compress),
            ("deflate", deflated),
            ("utf-8", lambda b: b),
            ("identity", lambda b: b),
        ]
    )
    if name:
        headers["Content-Encoding"] = name
    if rng.random() < 0.1:
        body = rng.choice([b"\xef\xbb\xbf" + body, b" " * 1000 + body, body + b"\r\n" * 1000])
    body = encode(body)
    status = rng.choice(["200 OK", "200", "201 \xff", "299 odd"])
    prefix = [b"HTTP/1.1 100 Continue\r\n\r\n" * rng.choice([1, 50])] if rng.random() < 0.1 else []
    way = rng.choice(["length", "chunks", "close"])
    if way == "length":
        pieces: list[Piece] = [head(status, {**headers, "Content-Length": str(len(body))}), body]
    elif way == "chunks":
        size = rng.choice([1, 7, 1000, 1 << 20]) if len(body) < 5000 else 4096
        chunks = [body[i : i + size] for i in range(0, len(body), size)]
        framed = b"".join(f"{len(c):x};a=b\r\n".encode() + c + b"\r\n" for c in chunks) + b"0\r\nX-Late: 1\r\n\r\n"
        pieces = [head(status, {**headers, "Transfer-Encoding": "chunked"}), framed]
    else:
        pieces = [head(status, headers), body]
    if rng.random() < 0.2 and isinstance(pieces[-1], bytes):
        whole = pieces.pop()
        middle = len(whole) // 2
        pieces += [whole[:middle], 0.05, whole[middle:]]
    return [*prefix, *pieces]


# -- replies ----------------------------------------------------------------------------------------------------------


def good(rng: random.Random, text: str, nonce: str) -> Reply:
    """An answer that must be taken, however it is dressed."""
    draft = f"<think>{text} or not?</think>\n" if rng.random() < 0.2 else ""
    body, tokens = completion(rng, draft + text, nonce)
    return Reply("a good answer", dressed(rng, body), STORED, tokens)


def useless(rng: random.Random, text: str, nonce: str) -> Reply:
    """A completion whose text is no answer; it is paid for and stored."""
    body, tokens = completion(rng, useless_content(rng, text), nonce)
    return Reply("a useless answer", dressed(rng, body), USELESS, tokens)


def changed(rng: random.Random, text: str, nonce: str) -> Reply:
    """A good answer with bytes changed, cut or repeated at random."""
    body, _ = completion(rng, text, nonce)
    raw = bytearray(http(200, body, {"Content-Type": "application/json"}))
    for _ in range(rng.choice([1, 1, 2, 20])):
        at = rng.randrange(len(raw))
        action = rng.randrange(3)
        if action == 0:
            raw[at] = rng.randrange(256)
        elif action == 1:
            del raw[at : at + rng.choice([1, 10, 1000])]
        else:
            raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 10])))
        if not raw:
            break
    return Reply("changed bytes", [bytes(raw)], EITHER)


def no_completion(rng: random.Random, text: str, nonce: str) -> Reply:
    """A body that is JSON of another shape, or none."""
    shapes = [
        *("[]", "null", "3", '"text"', "{}", '{"choices": []}', '{"choices": {}}', '{"choices": [null]}'),
        *('{"choices": [[]]}', '{"choices": [{"message": null}]}', '{"choices": [{"message": [1]}]}', '{"choices": 1}'),
        *(
            '{"choices": "ab"}',
            '{"error": {"message": {"a": [1]}}}',
            '{"error": []}',
            '{"error": null}',
            "",
            "\x00",
            "{",
        ),
        *('{"error": {"message": "\x1b[2J\\u001b]0;x\\u0007"}}', '{"detail": [{"msg": "no"}]}', "<html>no"),
        *("[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, '{"error":' * 400 + "1" + "}" * 400),
        '{"error": ' + "7" * 6000 + "}",
        json.dumps({"error": {"message": f"key {KEY} " + "long " * 5000, "code": 7}}),
    ]
    body = rng.choice([*(s.encode() for s in shapes), rng.randbytes(3000), b"\xff\xfe" + b"\x00\xd8" * 9])
    return Reply("no completion", dressed(rng, body), NOTHING)


def other_status(rng: random.Random, text: str, nonce: str) -> Reply:
    """A good answer under a status that says it is none."""
    status = rng.choice([100, 101, 204, 300, 304, 307, 308, 400, 401, 404, 408, 418, 429, 451, 500, 503, 599, 600, 999])
    headers = odd_headers(rng)
    if 300 <= status < 400:
        headers["Location"] = rng.choice(
            [ELSEWHERE.decode(), "//" + ELSEWHERE.decode(), "\x80", "http://[::1", "x" * 9000]
        )
    if status in (429, 503):
        past, far = "Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 31 Dec 9999 23:59:59 -9999"
        headers["Retry-After"] = rng.choice(
            ["0.01", "7200", "9" * 400, past, far, "-1", "\u0663\u0663\u0663\u0663", "20ms"]
        )
    body, _ = completion(rng, text, nonce)
    return Reply(
        f"status {status}", [head(f"{status} X", {**headers, "Content-Length": str(len(body))}), body], NOTHING
    )


def large(rng: random.Random, text: str, nonce: str) -> Reply:
    """More than any answer has: plain, packed, packed twice, or without end."""
    status = rng.choice(["200 OK", "200 OK", "400 X", "500 X"])
    stream = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    block = stream.compress(b" " * (1 << 20)) + stream.flush(zlib.Z_FULL_FLUSH)
    start = gzip.compress(b"")[:10]
    way = rng.randrange(7)
    if way == 0:
        pieces: list[Piece] = [head(status, {"Content-Length": str(1 << 40)}), (b" " * (1 << 16), 256)]
    elif way == 1:
        pieces = [head(status, {"Content-Encoding": "gzip"}), start, (block, 1024)]
    elif way == 2:
        inner = gzip.compress(start + block * 512)
        pieces = [head(status, {"Content-Encoding": "gzip, gzip"}), inner]
    elif way == 3:
        pieces = [head(status, {"Transfer-Encoding": "chunked"}), (b"10000\r\n" + b"[" * (1 << 16) + b"\r\n", 256)]
    elif way == 4:
        pieces = [head(status, {"Content-Encoding": rng.choice(["br", "zstd", "compress"])}), rng.randbytes(1 << 18)]
    elif way == 5:
        pieces = [b"HTTP/1.1 200 OK\r\n", (b"X-Many: " + b"y" * 200 + b"\r\n", 50_000)]
    else:
        pieces = [head(status, {"Content-Encoding": "deflate"}), (b"\x00\x00\x00\xff\xff" * 1000, 4000)]
    return Reply(f"large ({way})", pieces, NOTHING)


def cut(rng: random.Random, text: str, nonce: str) -> Reply:
    """A good answer that ends before it is whole, so that it must not be taken for one."""
    body, _ = completion(rng, text, nonce)
    way = rng.randrange(5)
    if way == 0:
        pieces: list[Piece] = [http(200, body[: rng.randrange(len(body))], length=len(body))]
    elif way == 1:
        whole = gzip.compress(body)
        pieces = [http(200, whole[: rng.randrange(len(whole) - 9)], {"Content-Encoding": "gzip"})]
    elif way == 2:
        pieces = [head("200 OK", {"Transfer-Encoding": "chunked"}), f"{len(body):x}\r\n".encode() + body[:-1]]
    elif way == 3:
        pieces = [
            rng.choice([b"", b"H", b"HTTP/1.1 200", b"HTTP/9.9 200 OK\r\n\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01"])
        ]
    else:
        pieces = [head("200 OK", {"Content-Length": rng.choice(["-1", "ten", "1, 2", "9" * 40])}), body]
    # Without a length that holds, what arrives whole may count.
    return Reply(f"cut ({way})", pieces, EITHER if way == 4 else NOTHING)


def slow(rng: random.Random, text: str, nonce: str) -> Reply:
    """Bytes that drip until long after the deadline."""
    first = rng.choice([b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
    drip: list[Piece] = [rng.choice([b" ", b"x", b"HTTP/1.1 100 Continue\r\n\r\n"]), 0.1]
    return Reply("a drip", [first, *drip * 100] if rng.random() < 0.7 else [first, 10.0], NOTHING)


KINDS = [*[good] * 6, *[useless] * 3, *[changed] * 3, *[no_completion] * 3, *[other_status] * 3, large, large, cut, cut]


def draw(rng: random.Random, name: str, number: int, question: str) -> Reply:
    """The reply to request ``number`` for a question."""
    kind = slow if rng.random() < 0.02 else rng.choice(KINDS)
    return kind(rng, content(name, question), f"[{name}-{number}]")


# -- cases ------------------------------------------------------------------------------------------------------------


class Replies:
    """Replies of a hostile server to ``tam data tag`` and ``tam data paraphrase``."""

    name = "replies"
    columns = ("tag", "paraphrase")
    limits = Limits(wall_s=60, cpu_s=60, memory_bytes=768 << 20, file_bytes=128 << 20)

    def make(self, number: int, rng: random.Random, folder: Path) -> str:
        """Queries and the replies to them."""
        script = {}
        with (folder / "in.jsonl").open("w") as file:
            for i in range(rng.choice([1, 4, 8])):
                name, question = f"q{i}", f"What is shown in part {i} [q{i}]?"
                file.write(json.dumps({"id": f"set/{name}", "question": question}) + "\n")
                script[name] = [draw(rng, name, n, question).dump() for n in range(rng.randrange(1, 5))]
        (folder / "script.json").write_text(json.dumps(script))
        return ", ".join(sorted({reply["kind"] for replies in script.values() for reply in replies}))

    def check(self, folder: Path, column: str) -> Result:
        """Run the command against the script, then against a good server, and judge what is stored."""
        script = json.loads((folder / "script.json").read_text())
        os.environ["OPENAI_API_KEY"] = KEY
        os.chdir(folder)
        for path in folder.glob("out*"):
            path.unlink()
        argv = ["data", column, "in.jsonl", "--out", "out.jsonl", "--model", "r1", "--max-reasks", "1"]
        argv += ["--max-attempts", "3", "--retry-wait", "0.01", "--timeout", str(TIMEOUT_S), "--concurrency", "4"]
        with ChatServer() as elsewhere:

            def scripted(name: str, times: int) -> Iterator[bytes | float] | None:
                replies = script[name]
                return pieces_of(replies[times], elsewhere.url.encode()) if times < len(replies) else None

            with ChatServer(fault=scripted) as server:
                code, err = run_command([*argv, "--base-url", server.url])
                asked = list(server.asked)
            fault = judge_end(code, err) or judge_store(script, asked, column)
            if fault is None:
                kept = set(finished())
                with ChatServer() as calm:
                    again, said = run_command([*argv, "--base-url", calm.url])
                    twice = kept & set(calm.asked)
                fault = judge_end(again, said) or judge_results(script, column, again, said)
                if twice:
                    fault = wrong(f"asked again though an answer is stored: {sorted(twice)}")
            if elsewhere.heads:
                fault = wrong("a request went to another server than --base-url")
        if fault is None and any(KEY in path.read_text() for path in folder.glob("out*")):
            fault = wrong("the key is in a file")
        if fault is not None:
            return fault
        aside = code != 0 or (folder / "out.jsonl.rejected.jsonl").stat().st_size > 0
        return Result(Verdict.REFUSED, " ".join(err.split())[:300]) if aside else right()


def run_command(argv: list[str]) -> tuple[int, str]:
    """Exit code and standard error of ``tam``."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = tam(argv)
    return code, err.getvalue()


def judge_end(code: int, err: str) -> Result | None:
    """What is wrong with how the command ended, if anything."""
    print(code, repr(err))
    if code not in (0, 2):
        return Result(Verdict.CRASHED, f"exit code {code}: {err[-500:]!r}")
    lines = err.splitlines()
    acting = [c for c in err.removesuffix("\n") if category(c) in ("Cc", "Cs", "Zl", "Zp") or c in "\u202a\u202e\u2066"]
    if len(lines) != 1 or acting or len(err) > 1500:
        return wrong(f"standard error is not one short line of plain text: {err[:500]!r}")
    return wrong("the key is in a message") if KEY in err else None


def stored_answers() -> list[dict[str, Any]]:
    """The answers in the store."""
    path = Path("out.jsonl.answers.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()[1:]] if path.exists() else []


def finished() -> list[str]:
    """Names of the queries that have a value in the store, or two useless replies."""
    useless_ones: dict[str, int] = {}
    done = []
    for answer in stored_answers():
        name = answer["id"].removeprefix("set/")
        useless_ones[name] = useless_ones.get(name, 0) + (answer["value"] is None)
        if answer["value"] is not None or useless_ones[name] > 1:
            done.append(name)
    return done


def expected_value(name: str, column: str, question: str) -> dict[str, Any]:
    """The value of a good answer."""
    if column == "paraphrase":
        return {"paraphrase": f"Put another way, {question}"}
    label = label_of(name)
    return {"label": label, "label2": label % 8 + 1 if label % 2 else None}


def judge_store(script: dict[str, list[dict[str, Any]]], asked: list[str], column: str) -> Result | None:
    """Whether the store holds just what was paid for, with its value."""
    stored: dict[str, list[dict[str, Any]]] = {}
    for answer in stored_answers():
        stored.setdefault(answer["id"].removeprefix("set/"), []).append(answer)
        for count in (answer["prompt_tokens"], answer["completion_tokens"]):
            if count is not None and not (type(count) is int and 0 <= count <= 10**7):
                return wrong(f"a token count of {count!r} was stored")
    for name, replies in script.items():
        sent = replies[: asked.count(name)]
        value = expected_value(name, column, f"What is shown in part {name[1:]} [{name}]?")
        answers = stored.get(name, [])
        fault = _judge_answers(name, sent, answers, value)
        if fault:
            return wrong(fault)
    return None


def _judge_answers(
    name: str, sent: list[dict[str, Any]], answers: list[dict[str, Any]], value: dict[str, Any]
) -> str | None:
    by_nonce = {answer["reasoning"]: answer for answer in answers}
    for number, reply in enumerate(sent):
        fault = _judge_reply(reply, by_nonce.get(f"[{name}-{number}]"), value)
        if fault:
            return f"{name}, reply {number} ({reply['kind']}): {fault}"
    becomes = [reply["becomes"] for reply in sent]
    changed_ones = becomes.count(EITHER)
    # What was changed at random may have another paraphrase, but no other label; a good answer ends each script.
    for answer in answers:
        found = answer["value"]
        if found not in (None, value) and ("label" in found or not changed_ones):
            return f"{name}: {str(found)[:200]} is stored, which no reply said"
    if len(answers) > becomes.count(STORED) + becomes.count(USELESS) + changed_ones + 1:
        return f"{name}: {len(answers)} answers are stored, more than were sent"
    return None


def _judge_reply(reply: dict[str, Any], answer: dict[str, Any] | None, value: dict[str, Any]) -> str | None:
    """What is wrong with what was stored of one reply, if anything."""
    if reply["becomes"] == EITHER:
        return None
    if reply["becomes"] == NOTHING:
        return None if answer is None else "it is stored"
    if answer is None:
        return "it was paid for and is not stored"
    if answer["value"] != (value if reply["becomes"] == STORED else None):
        return f"it is stored as {str(answer['value'])[:200]}"
    tokens = [answer["prompt_tokens"], answer["completion_tokens"]]
    return None if tokens == reply["tokens"] else f"its tokens {reply['tokens']} are stored as {tokens}"


def judge_results(script: dict[str, list[dict[str, Any]]], column: str, code: int, err: str) -> Result | None:
    """Whether the second run finished every query that was not set aside for its replies."""
    out = Path("out.jsonl")
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() and code == 0 else []
    aside = [json.loads(line)["reason"] for line in Path("out.jsonl.rejected.jsonl").read_text().splitlines()]
    if any(not reason.startswith("no usable reply in 2:") for reason in aside):
        return wrong(f"not answered by a good server: {aside}")
    if len(rows) + len(aside) != len(script):
        return wrong(f"{len(rows)} results and {len(aside)} set aside of {len(script)}: {err[:300]}")
    return None


if __name__ == "__main__":
    sys.exit(main(Replies()))
