"""``config.rope_scaling = None``, which the host's models set: no scaling, and not "no rotary embedding at all"."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tam_plugin.patches.record import Patch


def _is_alias(module: ModuleType) -> bool:
    """Whether ``rope_scaling`` is a property that writes ``rope_parameters``, where the base frequency lives too."""
    found = module.PretrainedConfig.__dict__.get("rope_scaling")
    return isinstance(found, property) and found.fset is not None


def _keep_base_frequency(original: property) -> property:
    def setter(self: Any, value: dict[str, Any] | None) -> None:
        """Change the scaling alone; the base frequency (theta) stays what it was."""
        before = getattr(self, "rope_parameters", None)
        if isinstance(before, dict) and "rope_theta" in before and (value is None or "rope_theta" not in value):
            scaling = {"rope_type": "default"} if value is None else value
            value = {**scaling, "rope_theta": before["rope_theta"]}
            value.setdefault("rope_type", value.get("type", "default"))
        assert original.fset is not None
        original.fset(self, value)

    return property(original.fget, setter, original.fdel, original.__doc__)


RECORDS: tuple[Patch, ...] = (
    Patch(
        name="rope.rope_scaling",
        target="transformers.configuration_utils:PretrainedConfig.rope_scaling",
        reason="the host sets config.rope_scaling = None to have no scaling; here that wipes the base frequency too",
        wrap=_keep_base_frequency,
        group="compat",
        may_be_absent=True,
        needed=_is_alias,
    ),
)
