"""Tokenizers as the host's training code uses them: the Trainer's argument, special tokens, chat templates."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

from tam_plugin.patches.compat._symptoms import parameters
from tam_plugin.patches.record import Patch

BASE = "transformers.tokenization_utils_base:PreTrainedTokenizerBase"


def _trainer_has_no_tokenizer(module: ModuleType) -> bool:
    return not hasattr(module.Trainer, "tokenizer") and "processing_class" in parameters(module.Trainer.__init__)


def _trainer_init(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(self: Any, *args: Any, **more: Any) -> None:
        if "tokenizer" in more:
            more.setdefault("processing_class", more.pop("tokenizer"))
        original(self, *args, **more)

    return init


def _lacks_additional(module: ModuleType) -> bool:
    return "additional_special_tokens" not in module.PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES


def _additional_tokens(_absent: Any) -> property:
    def additional_special_tokens(self: Any) -> list[str]:
        """Special tokens beside the named ones, in the order of the tokenizer's configuration."""
        return [str(token) for token in self.extra_special_tokens]

    return property(additional_special_tokens)


def _additional_ids(_absent: Any) -> property:
    def additional_special_tokens_ids(self: Any) -> list[int]:
        """Ids of the special tokens beside the named ones."""
        return list(self.convert_tokens_to_ids([str(token) for token in self.extra_special_tokens]))

    return property(additional_special_tokens_ids)


def _returns_a_dict(module: ModuleType) -> bool:
    found = parameters(module.PreTrainedTokenizerBase.apply_chat_template).get("return_dict")
    return found is not None and found.default is True


def _chat_template(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def apply_chat_template(self: Any, *args: Any, **more: Any) -> Any:
        """The host's code gets ids, as it expects; every other caller what it always got."""
        if "return_dict" not in more and _is_hosts(sys._getframe(1)):
            more["return_dict"] = False
        return original(self, *args, **more)

    return apply_chat_template


def _is_hosts(frame: FrameType) -> bool:
    """Whether the host's code runs in this frame; its scripts may run as ``__main__``."""
    name = str(frame.f_globals.get("__name__", ""))
    if name != "__main__":
        return name.partition(".")[0] == "llava"
    file = os.path.abspath(frame.f_globals.get("__file__") or "")
    folders = getattr(sys.modules.get("llava"), "__path__", ())
    return any(file.startswith(os.path.abspath(folder) + os.sep) for folder in folders)


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="trainer_tokenizer.trainer_init",
        target="transformers.trainer:Trainer.__init__",
        reason="the host passes tokenizer=, which became processing_class=",
        wrap=_trainer_init,
        group="compat",
        needed=_trainer_has_no_tokenizer,
    ),
    Patch(
        name="trainer_tokenizer.trainer_tokenizer",
        target="transformers.trainer:Trainer.tokenizer",
        reason="the host reads trainer.tokenizer, which became processing_class",
        wrap=lambda _absent: property(lambda self: self.processing_class),
        group="compat",
        may_be_absent=True,
        needed=_trainer_has_no_tokenizer,
    ),
    Patch(
        name="trainer_tokenizer.additional_special_tokens",
        target=f"{BASE}.additional_special_tokens",
        reason="the host reads it; these tokens are named extra_special_tokens now",
        wrap=_additional_tokens,
        group="compat",
        may_be_absent=True,
        needed=_lacks_additional,
    ),
    Patch(
        name="trainer_tokenizer.additional_special_tokens_ids",
        target=f"{BASE}.additional_special_tokens_ids",
        reason="preprocess_qwen unpacks the ids of <|im_start|> and <|im_end|> from it",
        wrap=_additional_ids,
        group="compat",
        may_be_absent=True,
        needed=_lacks_additional,
    ),
    Patch(
        name="trainer_tokenizer.apply_chat_template",
        target=f"{BASE}.apply_chat_template",
        reason="the host adds up lists of ids; by default a dictionary comes back now",
        wrap=_chat_template,
        group="compat",
        needed=_returns_a_dict,
    ),
)
