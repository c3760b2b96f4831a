"""A chat endpoint on loopback that answers by the question's text, fails on demand, and keeps a log of both.

It speaks HTTP on bare sockets, because a body that ends too early and a connection that is reset are what it is for.
A question holds ``[q17]``, its own name, and may hold words that decide the replies: ``two names``, ``no such name``
(both are asked again and then answered), ``never right``, ``aloud`` (thinking in the text), ``apart`` (thinking in a
field of its own).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tam_plugin.taxonomy import TaskType

LABELS = [task.label for task in TaskType]
FAULTS = ("429", "500", "408", "reset", "cut", "not json", "no choices", "page", "slow", "date")


def label_of(name: str) -> int:
    """The label (1-8) that the server gives to a question."""
    return hashlib.sha256(name.encode()).digest()[0] % 8 + 1


def reply_to(content: str, name: str, job: str) -> dict:
    """The message for a question: a function of what was sent alone."""
    again = "could not be used" in content
    label = label_of(name)
    if job == "paraphrase":
        question = content.split("<question>\n")[1].split("\n</question>", maxsplit=1)[0]
        same = "never right" in content or ("two names" in content and not again)
        return {"content": json.dumps({"paraphrase": question if same else f"Put another way, {question}"})}
    if job == "translate":
        question = content.split("<question>\n")[1].split("\n</question>", maxsplit=1)[0]
        options = re.findall(r"^- (.*)$", content, re.MULTILINE)
        wrong = "never right" in content or ("two names" in content and not again)
        said = [f"zh {option}" for option in options] + ["one more"] * wrong
        return {"content": json.dumps({"translation": f"zh {question}", "options": said or None})}
    answer = {"task": LABELS[label - 1], "second": LABELS[label % 8] if label % 2 else None}
    if "never right" in content or ("two names" in content and not again):
        answer["task"] = [LABELS[0], LABELS[1]]
    elif "no such name" in content and not again:
        answer["task"] = "Cooking"
    text = json.dumps(answer)
    if "aloud" in content:
        draft = json.dumps({"task": LABELS[(label + 2) % 8], "second": None})
        return {"content": f"<think>Perhaps {draft}?\nNo.</think>\n```json\n{text}\n```"}
    if "apart" in content:
        return {"content": text, "reasoning_content": "Perhaps Summary and Generalization? No."}
    return {"content": text}


@dataclass
class ChatServer:
    """A context manager that serves in a thread of its own.

    Args:
        fault: what goes wrong with the n-th request (0, 1, ...) for a question: one of :data:`FAULTS`, or the pieces of
            a raw HTTP answer, after which the connection is closed; None: nothing.
        plain: a raw HTTP answer to everything instead, made from the request's head: bytes, or pieces of them.
            Numbers among pieces are seconds to wait; pieces may have no end.
        wrap: makes the HTTP answer from the JSON of a good one, where it is to be unusual.
        window: (requests, seconds) of a limit that is told in headers and refused beyond.
        delay_s, slow_s: before each answer, and before a slow one.
        key: the only key that is let in; None lets in everybody.

    Attributes:
        asked: the names of the questions, in the order of the requests.
        sent: those that a whole good answer was sent to.
        refused: how many requests came beyond the limit.
        busiest: the most requests at once.
        heads: each request's head.
        bodies: each request's body.
    """

    fault: Callable[[str, int], str | Iterable[bytes | float] | None] = lambda name, times: None
    plain: Callable[[str], bytes | Iterable[bytes | float]] | None = None
    wrap: Callable[[bytes], bytes] | None = None
    window: tuple[int, float] | None = None
    key: str | None = None
    delay_s: float = 0.0
    slow_s: float = 0.05
    asked: list[str] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    refused: int = 0
    busiest: int = 0

    def __enter__(self) -> ChatServer:
        self._times: Counter[str] = Counter()
        self._progress = threading.Condition()
        self._busy = self._taken = 0
        self._window_ends_s = 0.0
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return once the logs fulfil a condition, or fail after a minute."""
        with self._progress:
            assert self._progress.wait_for(condition, timeout=60)

    def _log(self, log: list[str], name: str) -> None:
        with self._progress:
            log.append(name)
            self._progress.notify_all()

    def _serve(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._end = asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._end.wait()
            server.close()
            open_ones = asyncio.all_tasks() - {asyncio.current_task()}
            for task in open_ones:
                task.cancel()
            await asyncio.gather(*open_ones, return_exceptions=True)

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length.group(1)) if length else 0)
                self._busy += 1
                self.busiest = max(self.busiest, self._busy)
                try:
                    keep = await self._answer(head, body, writer)
                finally:
                    self._busy -= 1
                if not keep:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client is gone, or the test is over
        finally:
            writer.close()

    async def _answer(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        self.heads.append(head)
        if self.plain is not None:
            answer = self.plain(head)
            return await _send_pieces(writer, [answer] if isinstance(answer, bytes) else answer)
        request = json.loads(body)
        self.bodies.append(request)
        content = request["messages"][-1]["content"]
        name = re.search(r"\[(\w+)\]", content).group(1)
        self._log(self.asked, name)
        fault = self.fault(name, self._times[name])
        self._times[name] += 1
        if self.key is not None and f"Bearer {self.key}" not in head:
            return await _send(writer, 401, {"error": {"message": f"wrong key in: {head}"}})
        limits = self._count_in_window()
        if limits is None:
            return await _send(writer, 429, {"error": {"message": "too many"}}, {"Retry-After": "1"})
        if self.delay_s or fault == "slow":
            await asyncio.sleep(self.slow_s if fault == "slow" else self.delay_s)
        if fault is not None and not isinstance(fault, str):
            return await _send_pieces(writer, fault)
        if fault not in (None, "slow"):
            return await _fail(fault, writer)
        system = request["messages"][0]["content"]
        job = next((kind for kind in ("paraphrase", "translat") if f'{{"{kind}' in system), "tag")
        job = "translate" if job == "translat" else job
        message = {"role": "assistant", **reply_to(content, name, job)}
        answer = {"choices": [{"message": message, "finish_reason": "stop"}]}
        # One letter, one token: figures that a test can work out.
        answer["usage"] = {"prompt_tokens": len(content), "completion_tokens": len(message["content"])}
        if self.wrap is None:
            await _send(writer, 200, answer, limits)
        else:
            writer.write(self.wrap(json.dumps(answer).encode()))
            await writer.drain()
        self._log(self.sent, name)
        return True

    def _count_in_window(self) -> dict[str, str] | None:
        """The headers of the limit, or None beyond it."""
        if self.window is None:
            return {}
        size, length_s = self.window
        now = self._loop.time()
        if now >= self._window_ends_s:
            self._window_ends_s, self._taken = now + length_s, 0
        self._taken += 1
        if self._taken > size:
            self.refused += 1
            return None
        left_ms = int((self._window_ends_s - now) * 1000) + 1
        return {
            "x-ratelimit-remaining-requests": str(size - self._taken),
            "x-ratelimit-reset-requests": f"{left_ms}ms",
        }


def http(status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None) -> bytes:
    """A raw HTTP answer; ``length`` is what it claims to hold."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def _send(writer: asyncio.StreamWriter, status: int, values: dict, headers: dict | None = None) -> bool:
    writer.write(http(status, json.dumps(values).encode(), {"Content-Type": "application/json", **(headers or {})}))
    await writer.drain()
    return True


async def _send_pieces(writer: asyncio.StreamWriter, pieces: Iterable[bytes | float]) -> bool:
    for piece in pieces:
        if isinstance(piece, float):
            await asyncio.sleep(piece)
        else:
            writer.write(piece)
            await writer.drain()
    return False


async def _fail(fault: str, writer: asyncio.StreamWriter) -> bool:
    if fault == "reset":
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return False
    whole = json.dumps({"choices": [{"message": {"content": json.dumps({"task": LABELS[0]})}}]}).encode()
    past = "Wed, 21 Oct 2015 07:28:00 GMT"
    raw = {
        "429": http(429, b'{"error": {"message": "slow down"}}', {"Retry-After": "0.02"}),
        "date": http(503, b"later", {"Retry-After": past}),
        "500": http(500, b"<html>oops</html>", {"Content-Type": "text/html"}),
        "408": http(408, b""),
        "cut": http(200, whole[:-20], length=len(whole)),
        "not json": http(200, whole[:-20]),
        "no choices": http(200, b'{"error": {"message": "overloaded"}}'),
        "page": http(200, b"<!doctype html><title>one moment</title>", {"Content-Type": "text/html"}),
    }[fault]
    writer.write(raw)
    await writer.drain()
    return fault != "cut"
