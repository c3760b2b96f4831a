"""Which hosts are installed, found without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass


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
    if importlib.util.find_spec("transformers.models.llava_onevision") is None:
        return Host("onevision", False, "transformers has no llava_onevision; pip install 'transformers>=4.57'")
    return Host("onevision", True, f"transformers {importlib.metadata.version('transformers')}")


def _llava() -> Host:
    spec = importlib.util.find_spec("llava")
    if spec is None or not spec.submodule_search_locations:
        return Host("llava", False, "LLaVA-NeXT is not importable; install it from its repository to use it as a host")
    where = next(iter(spec.submodule_search_locations))
    return Host("llava", False, f"LLaVA-NeXT found at {where}; this version of the plugin has no patches for it")
