"""What of a checkpoint's ``generation_config.json`` is followed: its token ids and penalties, within bounds.

How an answer is searched for (beams, sampling, lengths, stops) is said by whoever asks; a checkpoint could ask for so
many beams that no memory holds them.
"""

from __future__ import annotations

import math
from typing import Any

from tam_plugin.bounds import MAX_BEAMS, is_whole
from tam_plugin.config import short
from tam_plugin.errors import ConfigError

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_PENALTIES = ("repetition_penalty",)
_COUNTS = {
    "num_beams": MAX_BEAMS,
    "num_beam_groups": MAX_BEAMS,
    "num_return_sequences": MAX_BEAMS,
    "max_length": 1 << 25,
    "max_new_tokens": 1 << 25,
    "min_length": 1 << 25,
    "min_new_tokens": 1 << 25,
}
_MAX_ENDS = 64


def followed(config: Any, vocabulary: int, where: str) -> Any:
    """A ``GenerationConfig`` with those fields of a checkpoint's that hold for every answer.

    Args:
        config: the checkpoint's.
        vocabulary: number of token ids.
        where: the checkpoint, for messages.

    Raises:
        ConfigError: a token id that the model does not have, or a number that no generation has.
    """
    from transformers import GenerationConfig

    kept: dict[str, Any] = {}
    for name in _IDS:
        value = getattr(config, name, None)
        ids = value if isinstance(value, list) else [value]
        if value is not None and (
            not 1 <= len(ids) <= _MAX_ENDS or not all(is_whole(token, 0, vocabulary - 1) for token in ids)
        ):
            raise _bad(where, name, value, f"token ids from 0 to {vocabulary - 1}")
        kept[name] = value
    for name in _PENALTIES:
        value = getattr(config, name, None)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if value is not None and not (number and 0 < value <= 100):
            raise _bad(where, name, value, "a number above 0, at most 100")
        kept[name] = value
    for name, most in _COUNTS.items():
        value = getattr(config, name, None)
        if value is not None and not is_whole(value, 0, most):
            raise _bad(where, name, value, f"a whole number from 0 to {most:,}")
    return GenerationConfig(**{name: value for name, value in kept.items() if value is not None})


def _bad(where: str, name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{where}: generation_config.json: {name} = {short(value)}: expected {expected}")
