"""Parameters by part of the model, and the table that says which of them train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Part(NamedTuple):
    """One part.

    Attributes:
        name: ``llm``, ``lora``, ``gates``, ``experts``, ``tower``, ``projectors`` or ``newline``.
        parameters: how many it has.
        trainable: how many of them train.
    """

    name: str
    parameters: int
    trainable: int


def format_parts(parts: Sequence[Part]) -> str:
    """A table of the parts with their sum."""
    whole = Part("all", sum(part.parameters for part in parts), sum(part.trainable for part in parts))
    lines = [f"{'part':<12}{'parameters':>18}{'trainable':>18}"]
    lines += [f"{part.name:<12}{part.parameters:>18,}{part.trainable:>18,}" for part in (*parts, whole)]
    return "\n".join(lines)
