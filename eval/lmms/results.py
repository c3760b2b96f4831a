"""What a model returns to lmms-eval for a request, in forms that it neither misreads nor caches."""

from __future__ import annotations

ERROR_MARK = "[TAM: no answer]"
"""How the response of a request without an answer begins in lmms-eval's sample files."""


class NoAnswer(str):
    """Why there is no answer, as a response.

    Stripped, it is empty: scoring strips responses and finds nothing to take for an answer, and the response cache
    refuses blank responses, so that a later run asks again.
    """

    def __new__(cls, reason: str) -> NoAnswer:
        return super().__new__(cls, f"{ERROR_MARK} {reason}")

    def strip(self, chars: str | None = None, /) -> str:
        """An empty text, so that the response counts as blank."""
        return ""


class LogLikelihood(tuple):
    """``(loss, is_greedy)`` of a continuation, as lmms-eval's tasks compare them: the least loss wins.

    lmms-eval 0.7.3 turns a plain pair into its ``str``; inside a ``GenerationResult`` it stays what it is. The
    response cache cannot give pairs back unharmed; it asks ``strip`` whether a response is blank, and keeps no blank
    one.
    """

    def __new__(cls, loss: float, is_greedy: bool) -> LogLikelihood:
        return super().__new__(cls, (loss, is_greedy))

    def strip(self) -> str:
        """An empty text, so that the response counts as blank."""
        return ""
