"""Asks about every row until each has a usable answer or is set aside; goes on where a killed run stopped."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tam_plugin.errors import InputError, TamNotice
from tam_plugin.inductor.tagging.answers import AnswerStore
from tam_plugin.inductor.tagging.client import ChatClient, NoAnswerError
from tam_plugin.inductor.tagging.prompts import BuildMessages
from tam_plugin.inductor.tagging.replies import Reply, ReplyError
from tam_plugin.inductor.tagging.rows import Row
from tam_plugin.inductor.tagging.settings import ChatSettings
from tam_plugin.inductor.tagging.spending import Prices, Spending, token_count
from tam_plugin.inductor.tagging.waiting import Pacer, Stopped

Parse = Callable[[Reply, Row], dict[str, Any]]
_IN_A_ROW, _IN_A_ROW_LATER = 5, 50
"""So many queries one after the other without an answer end the run: the server is at fault, not the query. Once
there are answers it is less sure: what a resumed run finds left may be just the queries that a server fails on."""
_SILENT_S = 5.0
"""Waiting longer than this for what is under way is announced."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a run goes.

    Attributes:
        max_reasks: how often a query is asked again after a reply that cannot be used.
        prices: what tokens cost and what may be spent, earlier runs on the same store included.
    """

    max_reasks: int = 2
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if not 0 <= self.max_reasks <= 100:
            raise InputError(f"--max-reasks {self.max_reasks}: expected a whole number from 0 to 100")


@dataclass
class Outcome:
    """What is known after a run.

    Attributes:
        values: by id, what ``parse`` returned.
        rejected: by id, why a query was set aside after its last reply.
        unanswered: by id, why a query got no answer; the next run asks it again.
        spending: tokens and cost, earlier runs included.
        interrupted: Ctrl-C or another signal ended the run.
        over_budget: the limit of cost ended the run.
    """

    spending: Spending
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    unanswered: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    over_budget: bool = False


def run(
    rows: Iterable[Row],
    total: int,
    *,
    build_messages: BuildMessages,
    parse: Parse,
    store: AnswerStore,
    settings: ChatSettings,
    limits: Limits,
) -> Outcome:
    """Ask about the rows that the store has no usable answer to.

    Args:
        rows: rows with an ``id`` each.
        total: how many there are.
        build_messages: the messages for a row, and for what was wrong with its reply before, if anything was.
        parse: a reply's value as JSON values by name; raises :class:`ReplyError` to have the row asked again.
        store: holds earlier answers and takes new ones.
        settings: the endpoint.
        limits: how far to go.

    Raises:
        InputError: no query can be answered (address, key, model), or the store cannot be written.
    """
    asking = _Asking(build_messages, parse, store, settings, limits, total)
    absurd = 0
    for answer in store.read():
        for name in ("prompt_tokens", "completion_tokens"):
            count = answer.get(name)
            answer[name] = token_count(count)
            absurd += answer[name] is not count
        asking.take(answer)
    if absurd:
        warnings.warn(
            f"{str(store.path)!r} holds {absurd} token counts that cannot be right, as a server gave them; the answers "
            "are kept, and each counts as the mean of the others",
            TamNotice,
            stacklevel=2,
        )
    asyncio.run(asking.ask_all(rows))
    return asking.outcome


class _Asking:
    def __init__(
        self,
        build_messages: BuildMessages,
        parse: Parse,
        store: AnswerStore,
        settings: ChatSettings,
        limits: Limits,
        total: int,
    ) -> None:
        self.build_messages, self.parse = build_messages, parse
        self.store, self.settings, self.limits, self.total = store, settings, limits, total
        self.outcome = Outcome(Spending(limits.prices))
        self.invalid: dict[str, tuple[int, str]] = {}
        self.in_a_row = 0
        self.answered = False
        self.all_taken = False
        self.leaving = False

    def take(self, answer: dict[str, Any]) -> None:
        """Count a stored answer."""
        self.answered = True
        identity, outcome = answer["id"], self.outcome
        outcome.spending.add(answer.get("prompt_tokens"), answer.get("completion_tokens"))
        if answer.get("value") is not None:
            outcome.values[identity] = answer["value"]
            outcome.rejected.pop(identity, None)
            return
        times = self.invalid.get(identity, (0, ""))[0] + 1
        self.invalid[identity] = times, str(answer.get("error"))
        if times > self.limits.max_reasks:
            outcome.rejected[identity] = f"no usable reply in {times}: {answer.get('error')}"

    async def ask_all(self, rows: Iterable[Row]) -> None:
        """Run the workers until they are done, a fault ends them all, or a signal does."""
        from tqdm import tqdm

        self.pacer = Pacer(self.settings.requests_per_minute)
        # disable=None: a bar at a terminal alone.
        with tqdm(total=self.total, disable=None, unit="query", dynamic_ncols=True) as self.bar:
            open_rows = self._open_rows(rows)
            async with ChatClient(self.settings, self.pacer) as self.client:
                count = min(self.settings.concurrency, self.total)
                self.workers = [asyncio.create_task(self._work(open_rows)) for _ in range(count)]
                remove = self._watch_signals()
                try:
                    await self._finish()
                finally:
                    # Before Python 3.12 a worker whose answer has just come does not notice that it is cancelled.
                    self.pacer.stop()
                    for worker in self.workers:
                        worker.cancel()
                    ended = await asyncio.gather(*self.workers, return_exceptions=True)
                    await self.store.flush()
                    remove()
        for error in ended:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error

    async def _finish(self) -> None:
        """Wait for the workers. After a fault of one, the answers that the others wait for are paid for and come in."""
        _, pending = await asyncio.wait(self.workers, return_when=asyncio.FIRST_EXCEPTION)
        if not pending:
            return
        self.pacer.stop()
        _, pending = await asyncio.wait(pending, timeout=_SILENT_S)
        if pending:
            self._say(f"stopping after a fault, {self._under_way()}; Ctrl-C leaves them")
            self.leaving = True
            await asyncio.wait(pending)

    def _open_rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            if row["id"] in self.outcome.values or row["id"] in self.outcome.rejected:
                self.bar.update()
            else:
                yield row
        self.all_taken = True

    async def _work(self, open_rows: Iterator[Row]) -> None:
        try:
            for row in open_rows:
                await self._ask(row)
                self.bar.update()
                self.bar.set_postfix_str(self.outcome.spending.describe(self.bar.n, self.total), refresh=False)
        except Stopped:
            return

    async def _ask(self, row: Row) -> None:
        """Ask about one row until it has a value or is set aside."""
        identity = row["id"]
        while identity not in self.outcome.values and identity not in self.outcome.rejected:
            error = self.invalid.get(identity, (0, None))[1]
            try:
                completion = await self.client.complete(self.build_messages(row, error), self._may_ask)
            except NoAnswerError as failure:
                self._left(identity, str(failure))
                return
            self.in_a_row, self.answered = 0, True
            reply = completion.reply
            answer = {"id": identity, "value": None, "error": None, "reply": reply.text, "reasoning": reply.reasoning}
            answer |= {"finish_reason": reply.finish_reason}
            answer |= {"prompt_tokens": completion.prompt_tokens, "completion_tokens": completion.completion_tokens}
            try:
                answer["value"] = self.parse(reply, row)
            except ReplyError as invalid:
                answer["error"] = str(invalid)
            await self.store.append(answer)
            self.take(answer)

    def _left(self, identity: str, reason: str) -> None:
        self.outcome.unanswered[identity] = reason
        self.in_a_row += 1
        if self.in_a_row >= (_IN_A_ROW_LATER if self.answered else _IN_A_ROW) and not self.all_taken:
            raise InputError(
                f"{self.in_a_row} queries in a row got no answer, the last of them {identity!r}: {reason}; "
                f"what was answered is in {str(self.store.path)!r}, and the same command goes on from there"
            )

    def _may_ask(self) -> None:
        if not self.outcome.spending.allows(self.pacer.in_flight):
            self.outcome.over_budget = True
            self.pacer.stop()
            raise Stopped

    def _watch_signals(self) -> Callable[[], object]:
        """Ctrl-C, and the signals that ask a process to end, let answers under way arrive. Returns what undoes it.

        A second Ctrl-C leaves them. Another second signal does not: ``timeout`` and batch systems send theirs twice.
        """
        loop = asyncio.get_running_loop()

        def interrupt(number: int) -> None:
            if self.leaving and number == signal.SIGINT:
                for worker in self.workers:
                    worker.cancel()
            if not self.outcome.interrupted:
                self.outcome.interrupted = True
                if not self.leaving:
                    self._say(f"stopping, {self._under_way()}; Ctrl-C again leaves them")
            self.leaving = True
            self.pacer.stop()

        watched = [signal.SIGINT, signal.SIGTERM]
        # Ignored where nohup wants the process to outlive its terminal.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            watched.append(signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in watched}
        try:
            for number in watched:
                loop.add_signal_handler(number, interrupt, number)
        except (NotImplementedError, RuntimeError, ValueError):
            return lambda: None  # not the main thread: whoever started this one has the signals

        def remove() -> None:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler or signal.SIG_DFL)

        return remove

    def _under_way(self) -> str:
        count = self.pacer.in_flight
        return "1 answer is under way" if count == 1 else f"{count} answers are under way"

    def _say(self, text: str) -> None:
        self.bar.clear()
        with contextlib.suppress(OSError):  # a terminal that was closed is what SIGHUP is about
            print(f"tam data: {text}", file=sys.stderr, flush=True)
