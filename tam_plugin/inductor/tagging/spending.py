"""Tokens and what they cost, over all runs on a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tam_plugin.errors import InputError

MAX_TOKENS = 10**7
"""No prompt and no reply has more tokens than this."""


def token_count(value: Any) -> int | None:
    """A number of tokens that a server (or a store of answers) gives, or None where it cannot be one."""
    usable = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_TOKENS
    return value if usable else None


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices a million tokens, in whatever currency; ``max_cost`` is in the same.

    Raises:
        InputError: a negative price, or a limit without prices.
    """

    price_in: float = 0.0
    price_out: float = 0.0
    max_cost: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("--price-in", self.price_in), ("--price-out", self.price_out)):
            if not 0 <= value < float("inf"):
                raise InputError(f"{option} {value}: expected a price a million tokens, 0 or more")
        if self.max_cost is not None:
            if not self.max_cost > 0:
                raise InputError(f"--max-cost {self.max_cost}: expected more than 0")
            if not self.known:
                raise InputError(f"--max-cost {self.max_cost:g} needs --price-in and --price-out")

    @property
    def known(self) -> bool:
        """Whether anything costs anything."""
        return self.price_in > 0 or self.price_out > 0


@dataclass
class Spending:
    """What has been spent so far. Answers whose tokens are not known count as the mean of the others.

    Attributes:
        answers: all of them.
        unknown: those of which the server did not say the tokens.
    """

    prices: Prices
    answers: int = 0
    unknown: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count one answer; None where the server does not say."""
        self.answers += 1
        if prompt_tokens is None or completion_tokens is None:
            self.unknown += 1
            return
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    @property
    def cost(self) -> float:
        """So far."""
        known = (self.prompt_tokens * self.prices.price_in + self.completion_tokens * self.prices.price_out) / 1e6
        return known * self.answers / (self.answers - self.unknown) if self.answers > self.unknown else 0.0

    def allows(self, in_flight: int) -> bool:
        """Whether ``in_flight`` answers at the mean cost so far stay within the limit.

        Raises:
            InputError: there is a limit, and of no answer the server said how many tokens it took.
        """
        limit = self.prices.max_cost
        if limit is None:
            return True
        if self.unknown and self.unknown == self.answers:
            raise InputError(
                "the server does not say how many tokens an answer took, so --max-cost cannot be kept; leave it out"
            )
        mean = self.cost / self.answers if self.answers else 0.0
        return self.cost < limit and self.cost + in_flight * mean <= limit

    def describe(self, done: int = 0, total: int = 0) -> str:
        """Tokens and cost; with ``done`` of ``total`` queries also what the whole will cost."""
        text = f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens"
        if self.unknown:
            text += f" (not known of {self.unknown} answer{'s' if self.unknown > 1 else ''})"
        if self.prices.known:
            text += f", cost {self.cost:.4g}"
            if 0 < done < total:
                text += f" of about {self.cost * total / done:.4g}"
        return text
