"""transformers 5.24 hands its cache over as ``cache``, where the host's models know ``past_key_values`` alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import find, parameters
from tam_plugin.patches.record import Patch

_MODELS = {
    "llava_llama": "LlavaLlamaForCausalLM",
    "llava_mistral": "LlavaMistralForCausalLM",
    "llava_mixtral": "LlavaMixtralForCausalLM",
    "llava_qwen": "LlavaQwenForCausalLM",
    "llava_qwen_moe": "LlavaQwenMoeForCausalLM",
}


def _knows_the_old_name_alone(model: str) -> Callable[[ModuleType], bool]:
    def check(module: ModuleType) -> bool:
        cls = find(module, model)
        return "cache" in parameters(super(cls, cls).forward) and "cache" not in parameters(cls.forward)

    return check


def _takes_cache(original: Callable) -> Callable:
    """Take the cache by its new name too; the host hands it on by the old one, which transformers still takes."""

    @functools.wraps(original)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if "cache" in kwargs:
            kwargs["past_key_values"] = kwargs.pop("cache")
        return original(self, *args, **kwargs)

    return forward


RECORDS: tuple[Patch, ...] = tuple(
    Patch(
        name=f"generation_cache.{module.removeprefix('llava_')}",
        target=f"llava.model.language_model.{module}:{model}.forward",
        reason="transformers gives the cache of generation by a name that the host's forward does not take",
        wrap=_takes_cache,
        group="compat",
        requires=(f"llava.model.language_model.{module}:{model}",),
        needed=_knows_the_old_name_alone(model),
    )
    for module, model in _MODELS.items()
)
