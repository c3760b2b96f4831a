"""Lines of the sample log, looked at before anything is worked out from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tam_plugin.errors import InputError

ALWAYS = {"doc_id": 0, "index": 0}
WITH_FRAMES = {"frames": 1, "stride": 1, "visual_tokens": 1, "prompt_tokens": 1, "output_tokens": 0}
"""Whole numbers, and the least that each can be."""


def check_record(record: Mapping[str, Any], file: str) -> None:
    """Refuse a line that the models do not write.

    Args:
        record: the line.
        file: the log, for the message.

    Raises:
        InputError: a value is not what its name says.
    """
    where = f"{file}: task {record['task']}, row {record['doc_id']}"
    needed = dict(ALWAYS)
    if not record.get("error"):
        needed |= WITH_FRAMES
        length: Any = record.get("duration_s")
        if not _is_number(length) or not 0 < length < math.inf:
            raise InputError(f"{where}: duration_s = {length!r}: expected seconds above 0")
    for name, least in needed.items():
        value = record.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{where}: {name} = {value!r}: expected a whole number >= {least}")
    confidence = record.get("confidence")
    if confidence is not None and not (_is_number(confidence) and 0 <= confidence <= 1 + 1e-6):
        raise InputError(f"{where}: confidence = {confidence!r}: expected a number in [0, 1]")
    for name in ("task_type", "extension"):
        if not isinstance(record.get(name), (str, type(None))):
            raise InputError(f"{where}: {name} = {record[name]!r}: expected a label")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
