"""The rows, and the questions that commands ask of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tam_plugin import addons
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.patches.hosts.host import ROWS, Host, LmmsModel, either
from tam_plugin.patches.hosts.llava_next import LlavaNext
from tam_plugin.patches.hosts.onevision import Onevision

if TYPE_CHECKING:
    from tam_plugin.patches.hosts.model import Assistant

DEMONSTRATION = Onevision.name
"""The host of the demonstration model that ships with the package."""


def hosts() -> list[Host]:
    """Every host, ready or not: those that ship and those of add-ons.

    Raises:
        ConfigError: an add-on does not import.
    """
    addons.load()
    return list(ROWS.values())


def host_named(name: str) -> Host:
    """The host of a name.

    Raises:
        InputError: there is none.
    """
    host = addons.find(ROWS, name)
    if host is None:
        raise InputError(f"host {name!r}: expected one of {', '.join(ROWS)}")
    return host


def find_host(config: Mapping[str, Any]) -> Host | None:
    """The host that a config.json belongs to; None if it is that of another kind of model.

    The host that was registered last is asked first, so that a derived host can take its own checkpoints.
    """
    return next((host for host in reversed(hosts()) if host.owns(config)), None)


def host_of(config: Mapping[str, Any], where: str) -> Host:
    """The host that a config.json belongs to.

    Args:
        config: its content.
        where: the checkpoint, for messages.

    Raises:
        ConfigError: it is that of another kind of model.
    """
    host = find_host(config)
    if host is None:
        from tam_plugin.config import short

        fields = dict.fromkeys(host.field for host in reversed(hosts()))
        found = [f"{name} {short(config[name])}" if config.get(name) is not None else f"no {name}" for name in fields]
        expected = either([host.checkpoints for host in hosts()])
        raise ConfigError(f"{where!r} has {' and '.join(found)}: expected {expected}")
    return host


def check_host(name: str, config: Mapping[str, Any], where: str) -> None:
    """Make sure that a config.json belongs to the host of this name.

    Args:
        name: the host's.
        config: its content.
        where: the checkpoint, for messages.

    Raises:
        ConfigError: it belongs to another host, or to none.
    """
    host = host_of(config, where)
    if host.name != name:
        raise ConfigError(f"{where!r} is {host.checkpoints}: expected {host_named(name).checkpoints}")


def register_host(host: Host) -> None:
    """Add a host to those that every command knows.

    Raises:
        InputError: its name is already taken.
    """
    if host.name in ROWS:
        raise InputError(f"host {host.name!r} is registered already, as {ROWS[host.name].reference}")
    ROWS[host.name] = host


def unregister_host(name: str) -> None:
    """Take a host out again.

    Raises:
        InputError: there is none of that name.
    """
    del ROWS[host_named(name).name]


def lmms_models() -> dict[str, LmmsModel]:
    """The models of all hosts by the names that lmms-eval has for them."""
    return {host.lmms_model.name: host.lmms_model for host in hosts() if host.lmms_model is not None}


def load_assistant(name_or_path: str | None = None, **options: Any) -> Assistant:
    """Load a checkpoint on its host, to answer questions about videos.

    Args:
        name_or_path: a checkpoint folder, or a name on the hub; None for the demonstration model.
        **options: see :meth:`Host.assistant`.

    Raises:
        InputError: nothing can be read under that name.
        ConfigError: no host owns the checkpoint, or its host cannot answer.
    """
    if name_or_path is None:
        return host_named(DEMONSTRATION).assistant(None, **options)
    from tam_plugin.patches.sources import checkpoint_config

    return host_of(checkpoint_config(name_or_path), name_or_path).assistant(name_or_path, **options)


for _host in (LlavaNext(), Onevision()):
    register_host(_host)
