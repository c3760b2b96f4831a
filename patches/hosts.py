"""Which hosts are installed; LLaVA-NeXT is found without importing it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder

from tam_plugin.errors import MissingDependencyError, TamError, reason_of
from tam_plugin.installing import install_command, missing_module, remedy_of

LLAVA_MODULES = ("llava.model.builder", "llava.train.train")
"""Modules of LLaVA-NeXT that between them import all that loading and training need."""


@dataclass(frozen=True)
class Host:
    """One host as found on this machine.

    Attributes:
        name: ``onevision`` (transformers' LlavaOnevision classes) or ``llava`` (LLaVA-NeXT).
        ready: whether a TAM model can run on it here.
        detail: version and location, or what is missing.
        remedy: how to get what is missing; None where nothing is.
    """

    name: str
    ready: bool
    detail: str
    remedy: str | None = None


def hosts() -> list[Host]:
    """Every host this plugin knows, ready or not."""
    return [onevision(), llava_next()]


def onevision() -> Host:
    """transformers' LLaVA-OneVision classes; they are imported to see."""
    try:
        import transformers

        version = transformers.__version__
        found = hasattr(transformers, "LlavaOnevisionModel")
    except Exception as error:  # whatever stands beside transformers and is broken
        reason = reason_of(error)
        return Host("onevision", False, reason, remedy_of(error, "transformers", reason))
    if not found:
        remedy = "install transformers 4.57 or newer, in another environment than LLaVA-NeXT's if that pins its own"
        return Host("onevision", False, f"transformers {version} is too old for LLaVA-OneVision", remedy)
    return Host("onevision", True, f"LLaVA-OneVision of transformers {version}")


def is_llava_next(spec: ModuleSpec | None) -> bool:
    """Whether the package behind ``spec`` is LLaVA-NeXT: the first LLaVA, of the same name, has no SigLIP encoder.

    The package may lie in a zip file; nothing of it is imported.
    """
    if spec is None or not spec.submodule_search_locations:
        return False
    folders = [os.path.join(where, "model", "multimodal_encoder") for where in spec.submodule_search_locations]
    return PathFinder.find_spec(f"{spec.name}.model.multimodal_encoder.siglip_encoder", folders) is not None


def llava_next() -> Host:
    """LLaVA-NeXT, found without importing it."""
    try:
        spec = importlib.util.find_spec("llava")
    except (ImportError, ValueError) as error:
        return Host("llava", False, f"llava cannot be found: {reason_of(error)}")
    get = "clone https://github.com/LLaVA-VL/LLaVA-NeXT and put its folder on PYTHONPATH"
    if spec is None or not spec.submodule_search_locations:
        return Host("llava", False, "LLaVA-NeXT is not importable", get)
    where = next(iter(spec.submodule_search_locations))
    if not is_llava_next(spec):
        return Host("llava", False, f"the package llava at {where} is not LLaVA-NeXT; it is left alone", get)
    return Host("llava", True, f"LLaVA-NeXT at {where}")


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
            remedy = llava_next().remedy
        else:
            remedy = install_command(missing, "llava-host") if missing else remedy_of(error, "llava", reason)
        raise MissingDependencyError(f"LLaVA-NeXT cannot be imported ({reason})", remedy) from error
