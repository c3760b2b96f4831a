"""What lmms-eval 0.7.3 must be told at run time, in one place; none of its files is changed.

Two things that a model has no other way to say: whose prompts its tasks take, and what besides ``--model_args`` tells
one cached response from another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tam_plugin.errors import ConfigError
from tam_plugin.patches.hosts import lmms_models
from tam_plugin.storage import values_sha256

_CURRENT: dict[str, Any] = {"prompts_of": None, "fingerprint": None}


def attach(prompts_of: str, fingerprint: dict[str, Any]) -> None:
    """Let tasks made from now on word prompts as for ``prompts_of``, and cached responses be keyed by ``fingerprint``.

    Raises:
        ConfigError: this lmms-eval is not one that the hooks were written for.
    """
    _CURRENT.update(prompts_of=prompts_of, fingerprint=values_sha256(fingerprint))
    from lmms_eval.api.task import ConfigurableTask
    from lmms_eval.caching.response_cache import ResponseCache

    _wrap(ConfigurableTask, "__init__", ("config", "model_name"), _task_init)
    _wrap(ResponseCache, "create", ("model", "model_args"), _cache_create)


def _wrap(owner: type, name: str, needed: tuple[str, ...], wrapper: Callable[[Callable], Callable]) -> None:
    raw = inspect.getattr_static(owner, name, None)
    original = getattr(raw, "__func__", raw)
    if original is None or not set(needed) <= set(inspect.signature(original).parameters):
        raise ConfigError(
            f"lmms-eval's {owner.__name__}.{name} takes no {' and '.join(needed)}: expected lmms-eval 0.7.3; "
            "pip install lmms-eval==0.7.3"
        )
    if not hasattr(original, "_tam_original"):
        wrapped = wrapper(original)
        wrapped._tam_original = original  # type: ignore[attr-defined]
        setattr(owner, name, classmethod(wrapped) if isinstance(raw, classmethod) else wrapped)


def _task_init(original: Callable) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        call = signature.bind(self, *args, **kwargs)
        given = call.arguments.get("model_name")
        prompts = (call.arguments.get("config") or {}).get("lmms_eval_specific_kwargs") or {}
        if given in lmms_models() and given not in prompts:  # a task that has words for this very model keeps them
            call.arguments["model_name"] = _CURRENT["prompts_of"]
        return original(*call.args, **call.kwargs)

    return __init__


def _cache_create(original: Callable) -> Callable:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def create(cls, *args, **kwargs):
        call = signature.bind(cls, *args, **kwargs)
        model = call.arguments.get("model")
        name = getattr(model, "cache_name", None)
        if isinstance(name, str):  # simple_evaluate(model=an instance)
            call.arguments["model"] = name
        elif model in lmms_models():
            call.arguments["model_args"] = f"{call.arguments.get('model_args')},tam={_CURRENT['fingerprint']}"
        return original(*call.args, **call.kwargs)

    return create
