"""What records look at to see whether their symptom is present: names and parameters, never version numbers."""

from __future__ import annotations

import builtins
import dis
import inspect
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any


def lacks(attribute: str) -> Callable[[ModuleType], bool]:
    """True for a module without ``attribute`` (a dotted path)."""

    def check(module: ModuleType) -> bool:
        return find(module, attribute) is None

    return check


def find(module: ModuleType, attribute: str) -> Any:
    """What stands at a dotted path inside a module, or None."""
    found: Any = module
    for step in attribute.split("."):
        found = getattr(found, step, None)
    return found


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters of a callable by name."""
    return dict(inspect.signature(function).parameters)


def unbound_globals(function: Callable[..., Any], module: ModuleType) -> set[str]:
    """Global names that a function of ``module`` reads and that neither the module nor the builtins define."""
    code = inspect.unwrap(function).__code__
    return {name for name in _global_names(code) if not hasattr(module, name) and not hasattr(builtins, name)}


def _global_names(code: CodeType) -> set[str]:
    names = {i.argval for i in dis.get_instructions(code) if i.opname == "LOAD_GLOBAL"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return names


def divides_before_backward(function: Callable[..., Any]) -> bool:
    """Whether a training step divides (its loss, by the accumulation steps) before its last call of ``backward``."""
    steps = list(dis.get_instructions(inspect.unwrap(function).__code__))
    last = max((n for n, step in enumerate(steps) if step.argval == "backward"), default=0)
    return any(step.opname == "BINARY_TRUE_DIVIDE" or step.argrepr in ("/", "/=") for step in steps[:last])
