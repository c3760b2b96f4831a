"""What lmms-eval 0.7.3 must be told at run time, as patch records; none of its files is changed.

Two things that a model has no other way to say: whose prompts its tasks take, and what besides ``--model_args`` tells
one cached response from another.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from tam_plugin.patches import activation
from tam_plugin.patches.hosts import lmms_models
from tam_plugin.patches.lifecycle import Patcher
from tam_plugin.patches.record import Patch
from tam_plugin.storage import values_sha256

VERSION = "0.7.3"
"""The release of lmms-eval that the records were written for."""

_CURRENT: dict[str, Any] = {"prompts_of": None, "fingerprint": None}


def attach(prompts_of: str, fingerprint: dict[str, Any]) -> None:
    """Let tasks made from now on word prompts as for ``prompts_of``, and cached responses be keyed by ``fingerprint``.

    :func:`tam_plugin.uninstall` puts lmms-eval's own functions back.

    Raises:
        HostDriftError: this lmms-eval is not one that the records were written for.
    """
    _CURRENT.update(prompts_of=prompts_of, fingerprint=values_sha256(fingerprint))
    PATCHER.apply(RECORDS)


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


def _cache_create(original: Any) -> Any:
    """``original`` is bound to its class; the underlying function is called with the class that was asked."""
    function = original.__func__
    signature = inspect.signature(function)

    @functools.wraps(function)
    def create(cls, *args, **kwargs):
        call = signature.bind(cls, *args, **kwargs)
        model = call.arguments.get("model")
        name = getattr(model, "cache_name", None)
        if isinstance(name, str):  # simple_evaluate(model=an instance)
            call.arguments["model"] = name
        elif model in lmms_models():
            call.arguments["model_args"] = f"{call.arguments.get('model_args')},tam={_CURRENT['fingerprint']}"
        return function(*call.args, **call.kwargs)

    return classmethod(create)


RECORDS = (
    Patch(
        name="harness.prompts",
        target="lmms_eval.api.task:ConfigurableTask.__init__",
        reason="tasks word their prompts by the model's name; a TAM model takes those of the model it was made from",
        wrap=_task_init,
        group="eval",
        signatures=(("self", "data_dir", "cache_dir", "download_mode", "config", "model_name"),),
        remedy=f"pip install lmms-eval=={VERSION}",
    ),
    Patch(
        name="harness.response_cache",
        target="lmms_eval.caching.response_cache:ResponseCache.create",
        reason="cached responses are keyed by --model_args alone; answers depend on weights, policy and Inductor too",
        wrap=_cache_create,
        group="eval",
        signatures=(("cache_root", "model", "model_args", "task_dict", "world_size", "global_rank"),),
        remedy=f"pip install lmms-eval=={VERSION}",
    ),
)
PATCHER = Patcher(RECORDS, rebind="lmms_eval")
activation.add_patcher(PATCHER)
