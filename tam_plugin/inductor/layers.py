"""Fewer layers of an encoder."""

from __future__ import annotations

from tam_plugin.errors import InputError


def keep_layers(count: int, of: int) -> list[int]:
    """``count`` of ``of`` layers, evenly spread, the first and the last among them.

    Raises:
        InputError: none, or more than there are.
    """
    if not 1 <= count <= of:
        raise InputError(f"--layers {count}: expected 1 to {of}")
    return [0] if count == 1 else [round(i * (of - 1) / (count - 1)) for i in range(count)]
