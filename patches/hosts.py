"""Which hosts are installed; LLaVA-NeXT is found without importing it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder


@dataclass(frozen=True)
class Host:
    """One host as found on this machine.

    Attributes:
        name: ``onevision`` (transformers' LlavaOnevision classes) or ``llava`` (LLaVA-NeXT).
        ready: whether a TAM model can run on it here.
        detail: version and location, or what is missing and how to get it.
    """

    name: str
    ready: bool
    detail: str


def hosts() -> list[Host]:
    """Every host this plugin knows, ready or not."""
    return [_onevision(), _llava()]


def _onevision() -> Host:
    import transformers

    version = transformers.__version__
    if not hasattr(transformers, "LlavaOnevisionModel"):
        return Host("onevision", False, f"transformers {version} is too old for it; pip install 'transformers>=4.57'")
    return Host("onevision", True, f"transformers {version}")


def is_llava_next(spec: ModuleSpec | None) -> bool:
    """Whether the package behind ``spec`` is LLaVA-NeXT: the first LLaVA, of the same name, has no SigLIP encoder.

    The package may lie in a zip file; nothing of it is imported.
    """
    if spec is None or not spec.submodule_search_locations:
        return False
    folders = [os.path.join(where, "model", "multimodal_encoder") for where in spec.submodule_search_locations]
    return PathFinder.find_spec(f"{spec.name}.model.multimodal_encoder.siglip_encoder", folders) is not None


def _llava() -> Host:
    try:
        spec = importlib.util.find_spec("llava")
    except (ImportError, ValueError) as error:
        return Host("llava", False, f"llava cannot be imported: {error}")
    if spec is None or not spec.submodule_search_locations:
        return Host("llava", False, "LLaVA-NeXT is not importable; install it from its repository to use it as a host")
    where = next(iter(spec.submodule_search_locations))
    if not is_llava_next(spec):
        return Host("llava", False, f"the package llava at {where} is not LLaVA-NeXT; it is left alone")
    return Host("llava", True, f"LLaVA-NeXT at {where}")
