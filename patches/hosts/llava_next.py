"""The row of LLaVA-NeXT, which is found without importing it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tam_plugin.bounds import MAX_TOKENS, is_whole
from tam_plugin.errors import ConfigError, MissingDependencyError, TamError, reason_of
from tam_plugin.installing import install_command, missing_module, remedy_of
from tam_plugin.patches.hosts.host import Host, HostState, LmmsModel

if TYPE_CHECKING:
    from tam_plugin.budget import TokenLayout
    from tam_plugin.checkpoint import Source, TensorLayout
    from tam_plugin.checkpoint.mapping_merge import Parts

ROOM = "tam_plugin.patches.llava_next"
"""What the row names and does not import: the room's own files read the row."""
LLAVA_MODULES = ("llava.model.builder", "llava.train.train")
"""Modules of LLaVA-NeXT that between them import all that loading and training need."""
REMEDY = "clone https://github.com/LLaVA-VL/LLaVA-NeXT and put its folder on PYTHONPATH"


def is_llava_next(spec: ModuleSpec | None) -> bool:
    """Whether the package behind ``spec`` is LLaVA-NeXT: the first LLaVA, of the same name, has no SigLIP encoder.

    The package may lie in a zip file; nothing of it is imported.
    """
    if spec is None or not spec.submodule_search_locations:
        return False
    folders = [os.path.join(where, "model", "multimodal_encoder") for where in spec.submodule_search_locations]
    return PathFinder.find_spec(f"{spec.name}.model.multimodal_encoder.siglip_encoder", folders) is not None


class LlavaNext(Host):
    """LLaVA-NeXT."""

    name = "llava"
    label = "LLaVA-NeXT"
    checkpoints = "a LLaVA-NeXT checkpoint (LLaVA-Video, LLaVA-OneVision)"
    field = "mm_vision_tower"
    lmms_model = LmmsModel(name="tallva", class_path="tam_plugin.eval.lmms.llava_next.Tallva", upgrades_dense=False)

    def probe(self) -> HostState:
        """See :class:`Host`; nothing of LLaVA-NeXT is imported."""
        try:
            spec = importlib.util.find_spec("llava")
        except (ImportError, ValueError) as error:
            return HostState(self.name, False, f"llava cannot be found: {reason_of(error)}")
        if spec is None or not spec.submodule_search_locations:
            return HostState(self.name, False, "LLaVA-NeXT is not importable", REMEDY)
        where = next(iter(spec.submodule_search_locations))
        if not is_llava_next(spec):
            detail = f"the package llava at {where} is not LLaVA-NeXT; it is not patched"
            return HostState(self.name, False, detail, REMEDY)
        return HostState(self.name, True, f"LLaVA-NeXT at {where}")

    def owns(self, config: Mapping[str, Any]) -> bool:
        """See :class:`Host`; the host's own classes of every language model write this field."""
        return self.field in config

    def tensor_layout(self, config: dict[str, Any], names: Iterable[str] | None, where: str) -> TensorLayout:
        """See :class:`Host`."""
        layout = importlib.import_module(f"{ROOM}.checkpoints.tensor_layout")
        return layout.tensor_layout_of(config, layout.NAMES if names is None else names, where)

    def token_layout(self, config: dict[str, Any], where: str) -> TokenLayout:
        """See :class:`Host`; of a sequence the host keeps what its tokenizer is told to keep."""
        longest = config.get("tokenizer_model_max_length")
        if longest is not None and not is_whole(longest, 1, MAX_TOKENS):
            raise ConfigError(f"{where}: tokenizer_model_max_length = {longest!r}: expected a whole number")
        return super().token_layout(config, where).replace(context_tokens=longest)

    def open_parts(self, folder: Path, base: Source) -> Parts:
        """See :class:`Host`."""
        return importlib.import_module(f"{ROOM}.checkpoints.merging").open_parts(folder, base)


def import_llava(*modules: str) -> None:
    """Import modules of LLaVA-NeXT; with the plugin started or installed they are patched.

    Raises:
        MissingDependencyError: one does not import. The host prints why and continues, so that its own error names a
            consequence: the message has the printed cause.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            for module in modules:
                importlib.import_module(module)
    except TamError:
        raise
    except Exception as error:
        cause = re.search(r"Failed to import .*? Error: (.*)", printed.getvalue())
        reason = f"{cause.group(1)}; {reason_of(error)}" if cause else reason_of(error)
        named = re.search(r"No module named '([\w.]+)'", reason)
        missing = named.group(1).partition(".")[0] if named else missing_module(error)
        if missing == "llava":
            remedy = LlavaNext().probe().remedy
        else:
            remedy = install_command(missing, "llava-host") if missing else remedy_of(error, "llava", reason)
        raise MissingDependencyError(f"LLaVA-NeXT cannot be imported ({reason})", remedy) from error
