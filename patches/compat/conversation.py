"""Importing the host's conversations where the gated Llama-3 tokenizer, which most models never use, is not at hand."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from tam_plugin.patches.record import Patch

HOST_MODULE = "llava.conversation"


def _loads_unguarded(module: ModuleType) -> bool:
    """Whether the host's file loads a tokenizer outside any ``try``; True where the file cannot be found."""
    spec = PathFinder.find_spec("llava")
    file = Path(next(iter(spec.submodule_search_locations))) / "conversation.py" if spec else None  # type: ignore[arg-type]
    if file is None or not file.is_file():
        return True
    return any(isinstance(node, ast.Attribute) and node.attr == "from_pretrained" for node in _outside_try(file))


def _outside_try(file: Path) -> Iterator[ast.AST]:
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.Try):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _from_pretrained(original: Callable[..., Any]) -> Any:
    @functools.wraps(original)
    def from_pretrained(cls: Any, *args: Any, **more: Any) -> Any:
        """Like the original; None for the host's conversations, which are imported whole, if it is missing."""
        try:
            return original(*args, **more)
        except OSError:
            if sys._getframe(1).f_globals.get("__name__") != HOST_MODULE:
                raise
            print(f"{args[0]} is not available: the Llama-3 conversation of LLaVA-NeXT has no tokenizer", flush=True)
            return None

    return classmethod(from_pretrained)


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="conversation.tokenizer",
        target="transformers.models.auto.tokenization_auto:AutoTokenizer.from_pretrained",
        reason="older hosts fetch the gated Llama-3 tokenizer when they are imported, and fail without it",
        wrap=_from_pretrained,
        group="compat",
        needed=_loads_unguarded,
    ),
)
