"""Errors of the plugin: each says what was wrong, with which value, what was expected and what to do.

The command line prints any :class:`TamError` as one line and exits with 2; anything else is a defect.

File names, model names, questions and answers of servers are written by others. What of them reaches a terminal or a
page goes through :func:`one_line` or :func:`printable`, so that no escape sequence acts there and no text is shown in
another order than it has.
"""

from __future__ import annotations

import re

# C0 and C1 control characters, DEL, marks that change the direction of text, line separators, lone surrogates.
_UNSAFE = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_CONTROLS = re.compile(f"[{_UNSAFE}]")
_CONTROLS_BUT_LAYOUT = re.compile(f"(?![\n\t])[{_UNSAFE}]")
_BREAKS = re.compile("[\t\n\v\f\r\x85\u2028\u2029]+")


def one_line(text: object) -> str:
    """``text`` on one line: line breaks become blanks, other control characters are written as escapes."""
    parts = (part.strip() for part in _BREAKS.split(str(text)))
    return _CONTROLS.sub(_escaped, " ".join(part for part in parts if part))


def printable(text: object, *, mark: str | None = None) -> str:
    """``text`` with its line feeds and tabs; every other control character as an escape, or as ``mark``."""
    return _CONTROLS_BUT_LAYOUT.sub(mark or _escaped, str(text).replace("\r\n", "\n"))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def check_unicode(*texts: str, what: str = "the text") -> None:
    """Refuse a lone surrogate (half a character), which no tokenizer reads and no UTF-8 file can contain.

    Raises:
        InputError: a text holds one.
    """
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise InputError(
                f"{what} {text[:60]!r} contains a lone surrogate (half a character): expected valid Unicode"
            ) from None


class TamError(Exception):
    """Base of every error that a person can act on; its text is one line, safe to print."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class InputError(TamError, ValueError):
    """A value that came from outside (an argument, a file, a query) cannot be used."""


class ConfigError(TamError, ValueError):
    """A configuration, policy or checkpoint is inconsistent; the message names the field and its value."""


class MissingDependencyError(TamError, ImportError):
    """A package is needed for what was asked; the message names it and how to install it.

    Args:
        problem: what is missing, or does not load and why.
        remedy: what to do; the message ends with it.
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem if remedy is None else f"{problem}: {remedy}")
        self.problem = problem
        self.remedy = remedy


class TamNotice(UserWarning):
    """Something was done differently from what was asked, and says so (a truncated query, a fallback)."""

    def __str__(self) -> str:
        return one_line(super().__str__())


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
    except (ImportError, OSError, RuntimeError) as error:  # a package whose libraries do not load raises any of these
        from tam_plugin.installing import install_command, remedy_of

        package = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            state, remedy = "is not installed", install_command(package, extra)
        else:
            reason = reason_of(error)
            state, remedy = f"does not load ({reason})", remedy_of(error, package, reason)
        raise MissingDependencyError(f"{needed_for} needs the package {package!r}, which {state}", remedy) from error


def reason_of(error: BaseException) -> str:
    """An exception and what caused it on one line, the innermost cause first; stack frames are left out."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = _without_frames(str(current))
        if isinstance(current, TamError):  # its message has its causes
            parts.append(text)
            break
        if text and not any(text in part for part in parts):
            parts.append(f"{type(current).__name__}: {text}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "; ".join(reversed(parts)) or type(error).__name__


def _without_frames(text: str) -> str:
    """A message on one line. Some packages quote whole tracebacks in theirs, of which only the errors tell anything."""
    if "Traceback (most recent call last)" not in text:
        return " ".join(text.split())
    noise = re.compile(r"\s+File |\s+[\^~]+\s*$|Traceback \(|The above exception|During handling")
    lines = text.splitlines()
    kept: dict[str, None] = {}  # each line once, in order
    for before, line in zip(["", *lines], lines, strict=False):
        source = line.startswith("    ") and before.lstrip().startswith("File ")
        if line.strip() and not source and not noise.match(line):
            kept[line.strip()] = None
    return " ".join(kept)
