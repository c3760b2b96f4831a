"""Qwen checkpoints that hold an adapter or a projector alone: the host's loader takes them for Llama or refuses."""

from __future__ import annotations

import dis
import functools
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tam_plugin.files import read_json
from tam_plugin.patches.record import Patch

_OF_BASE = {"architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path"}


def _asks_for_qwen_once(module: ModuleType) -> bool:
    """Whether the loader looks for "qwen" in one branch only, that of whole checkpoints."""
    steps = dis.get_instructions(inspect.unwrap(module.load_pretrained_model).__code__)
    return sum(step.opname == "LOAD_CONST" and step.argval == "qwen" for step in steps) == 1


def _load(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def load_pretrained_model(*args: Any, **more: Any) -> Any:
        given = dict(signature.bind(*args, **more).arguments)
        given.update(given.pop("kwargs", {}))
        if given.get("model_base") is None or not _is_qwen(given["model_path"]):
            return original(*args, **more)
        return _over_base(original, given)

    return load_pretrained_model


def _is_qwen(model_path: str) -> bool:
    """Whether a local folder's config.json says a LLaVA on Qwen2 with a tower of the host's own."""
    file = Path(model_path) / "config.json"
    if not file.is_file():
        return False
    values = read_json(file, strict=False)
    named = {values.get("model_type"), *(values.get("architectures") or ())}
    return bool(named & {"llava_qwen", "LlavaQwenForCausalLM"}) and values.get("mm_vision_tower") != "tam"


def _over_base(original: Callable[..., Any], given: dict[str, Any]) -> Any:
    """Load the base as a whole checkpoint under the adapter's settings, then put the adapter's weights over it."""
    import torch

    path, base = Path(given["model_path"]), given["model_base"]
    values = read_json(path / "config.json", strict=False)
    settings = {k: v for k, v in values.items() if k not in _OF_BASE} | (given.get("overwrite_config") or {})
    whole = {**given, "model_path": base, "model_base": None, "model_name": "llava_qwen", "overwrite_config": settings}
    tokenizer, model, processor, context = original(**whole)
    learned: dict[str, Any] = {}
    for name in ("mm_projector.bin", "non_lora_trainables.bin"):
        if (path / name).is_file():
            for key, value in torch.load(path / name, map_location="cpu", weights_only=True).items():
                learned[key.removeprefix("base_model.model.").replace(".base_layer.", ".")] = value
    model.load_state_dict(learned, strict=False)
    _check_newline(model, learned, base)
    if (path / "adapter_config.json").is_file():
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(path)).merge_and_unload()
    return tokenizer, model, processor, context


def _check_newline(model: Any, learned: dict[str, Any], base: str) -> None:
    """The host saves ``image_newline`` with neither adapter nor projector; garbage must not stand in for it."""
    newline = getattr(model.get_model(), "image_newline", None)
    file = Path(base) / "config.json"
    has_tower = file.is_file() and "mm_vision_tower" in read_json(file, strict=False)
    if newline is not None and not has_tower and not any("image_newline" in key for key in learned):
        newline.data.zero_()
        warnings.warn(f"image_newline is neither in the checkpoint nor in its base {base!r}: it is zero", stacklevel=3)


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="qwen_adapters.load",
        target="llava.model.builder:load_pretrained_model",
        reason="LoRA over a Qwen model is loaded as a Llama, and a Qwen model's projector alone is refused",
        wrap=_load,
        group="compat",
        needed=_asks_for_qwen_once,
        requires=("llava.model.language_model.llava_qwen:LlavaQwenForCausalLM",),
    ),
)
