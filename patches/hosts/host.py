"""A host as the registry knows it: how it is recognized, and what the commands can do with its checkpoints."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from tam_plugin.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from tam_plugin.budget import TokenLayout
    from tam_plugin.checkpoint import Source, TensorLayout
    from tam_plugin.checkpoint.mapping_merge import Parts
    from tam_plugin.patches.hosts.model import Assistant


@dataclass(frozen=True)
class HostState:
    """A host as it was found on this machine.

    Attributes:
        name: the host's, see :class:`Host`.
        ready: whether a TAM model can run on it here.
        detail: version and location, or what is missing.
        remedy: how to get what is missing; None if nothing is, or if nothing is known to help.
    """

    name: str
    ready: bool
    detail: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class LmmsModel:
    """The model by which lmms-eval evaluates a host's checkpoints.

    Attributes:
        name: as ``lmms_eval --model`` takes it.
        class_path: the dotted path of its class; lmms-eval imports it.
        upgrades_dense: whether it upgrades a dense checkpoint in memory; otherwise it evaluates it as it is.
    """

    name: str
    class_path: str
    upgrades_dense: bool


class Host(abc.ABC):
    """One row of the registry. Its methods import what they need; making a row and importing its class stay light.

    A subclass takes no arguments, so that another process can make the same row. :meth:`assistant`, :meth:`open_parts`
    and :attr:`lmms_model` are optional: without them the commands that need them say so.

    Attributes:
        name: short, unique and stable: it is in the output of ``tam doctor --json``.
        label: the name in words, for messages.
        checkpoints: the host's checkpoints in words, with their article, for messages.
        field: the field of config.json that :meth:`owns` looks at, for messages.
        lmms_model: how lmms-eval evaluates its checkpoints; None if it cannot.
    """

    name: str
    label: str
    checkpoints: str
    field: str = "model_type"
    lmms_model: LmmsModel | None = None

    @abc.abstractmethod
    def probe(self) -> HostState:
        """Look whether the host can run here. An installation that is broken or absent is an answer, not an error."""

    @abc.abstractmethod
    def owns(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json, dense or TAM, is that of this host."""

    @abc.abstractmethod
    def tensor_layout(self, config: dict[str, Any], names: Iterable[str] | None, where: str) -> TensorLayout:
        """Names and sizes of a checkpoint's tensors, for ``tam upcycle`` and ``tam flops``.

        Args:
            config: its config.json.
            names: its tensors; None if only config.json is known, and its tensors have the names they usually have.
            where: the checkpoint, for messages.

        Raises:
            ConfigError: the checkpoint cannot become a TAM model, or does not match its configuration.
            InputError: something that the configuration names cannot be read.
        """

    def token_layout(self, config: dict[str, Any], where: str) -> TokenLayout:
        """How a checkpoint lays out a video's tokens: grid, pooling, newline tokens, strides, context.

        A dense checkpoint's has no strides: one projector serves all of them.

        Args:
            config: its config.json.
            where: the checkpoint, for messages.

        Raises:
            TamError: as :meth:`tensor_layout`.
        """
        return self.tensor_layout(config, None, where).token_layout()

    def assistant(self, name_or_path: str | None, **options: Any) -> Assistant:
        """A loaded model that answers questions about videos, for ``tam ask``.

        Args:
            name_or_path: a checkpoint of this host; None for its demonstration model.
            **options: ``device``, ``dtype``, ``tam_config``.

        Raises:
            ConfigError: the host has none, or the checkpoint cannot be used.
            InputError: the checkpoint cannot be read.
        """
        self._refuse("assistant", name_or_path, "answering questions about videos")

    def open_parts(self, folder: Path, base: Source) -> Parts:
        """What a LoRA or projector-only run of this host saved, checked against its base, for ``tam merge``.

        Raises:
            ConfigError: the host has no such runs, or the run and the base do not fit each other.
            InputError: a file is missing or damaged.
        """
        self._refuse("open_parts", folder, "merging what a run saved")

    def require(self) -> None:
        """Make sure that the host can run here.

        Raises:
            MissingDependencyError: it cannot; with what to do.
        """
        state = self.probe()
        if not state.ready:
            raise MissingDependencyError(state.detail, state.remedy)

    @property
    def reference(self) -> str:
        """``module:Class``, by which another process makes the same row."""
        return f"{type(self).__module__}:{type(self).__qualname__}"

    def can(self, method: str) -> bool:
        """Whether the host has an optional method of its own."""
        return getattr(type(self), method) is not getattr(Host, method)

    def _refuse(self, method: str, where: object, doing: str) -> NoReturn:
        able = [host.checkpoints for host in ROWS.values() if host.can(method)]
        more = ""
        if method == "assistant" and self.lmms_model is not None:
            more = f"; 'tam eval --suite paper --model {self.lmms_model.name}' evaluates it"
        raise ConfigError(
            f"{str(where)!r} is {self.checkpoints}: {doing} is not supported on this host; expected {either(able)}"
            f"{more}"
        )


ROWS: dict[str, Host] = {}
"""The rows by their names, in the order of their registration; the registry fills and reads it."""


def either(texts: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
