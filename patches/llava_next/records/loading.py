"""The record on the host's loader."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tam_plugin.patches.record import Patch

_OPTIONS = ("device_map", "torch_dtype", "attn_implementation", "customized_config", "overwrite_config", "kwargs")
_OLD_OPTIONS = tuple(name for name in _OPTIONS if name != "torch_dtype")
_START = ("model_path", "model_base", "model_name", "load_8bit", "load_4bit")


def _know_tam(original: Callable) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def load_pretrained_model(*args: Any, **kwargs: Any) -> Any:
        from tam_plugin.patches.llava_next.checkpoints.loading import load, tam_values

        arguments = dict(signature.bind(*args, **kwargs).arguments)
        values = tam_values(arguments["model_path"])
        if values is None:
            return original(*args, **kwargs)
        arguments.update(arguments.pop("kwargs", {}))
        return load(original, arguments, values)

    return load_pretrained_model


RECORDS = (
    Patch(
        name="loading.load",
        target="llava.model.builder:load_pretrained_model",
        reason="TAM checkpoints are checked before they are loaded; LoRA and projector-only ones load over a base",
        wrap=_know_tam,
        signatures=((*_START, *_OPTIONS), (*_START, *_OLD_OPTIONS)),
    ),
)
