"""Errors of the plugin: each says what was wrong, with which value, what was expected and what to do.

The command line prints any :class:`TamError` as one line and exits with 2; anything else is a defect.
"""

from __future__ import annotations


class TamError(Exception):
    """Base of every error that a person can act on."""


class InputError(TamError, ValueError):
    """A value that came from outside (an argument, a file, a query) cannot be used."""


class ConfigError(TamError, ValueError):
    """A configuration, policy or checkpoint is inconsistent; the message names the field and its value."""


class MissingDependencyError(TamError, ImportError):
    """An optional package is needed for what was asked; the message names it and how to install it."""


class TamNotice(UserWarning):
    """Something was done differently from what was asked, and says so (a truncated query, a fallback)."""


def require(module: str, *, needed_for: str, extra: str | None = None):
    """Import and return ``module``, or raise :class:`MissingDependencyError` that says how to get it.

    Args:
        module: importable name, such as ``"decord"``.
        needed_for: what the user asked for, in words; it goes into the message.
        extra: the extra of ``tam-plugin`` that brings the package, if there is one.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        target = f"tam-plugin[{extra}]" if extra else package
        raise MissingDependencyError(
            f"{needed_for} needs the package {package!r}, which cannot be imported ({error}); pip install '{target}'"
        ) from error
