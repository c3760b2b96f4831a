"""The report of ``tam data stats`` as a folder: ``stats.md``, ``stats.json`` and ``stats.png``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tam_plugin.errors import InputError, require
from tam_plugin.inductor.data.compare import Comparison
from tam_plugin.inductor.data.figure import draw_classes
from tam_plugin.inductor.data.stats import Stats
from tam_plugin.inductor.data.tables import comparison_markdown, stats_markdown
from tam_plugin.storage import replace_file


def as_markdown(stats: Stats, comparison: Comparison | None = None) -> str:
    """The tables, those of the comparison below the others."""
    return stats_markdown(stats) + (f"\n{comparison_markdown(comparison)}" if comparison else "")


def as_dict(stats: Stats, comparison: Comparison | None = None) -> dict[str, Any]:
    """Plain values; a comparison is under ``comparison``."""
    return stats.as_dict() | ({"comparison": comparison.as_dict()} if comparison else {})


def check_folder(folder: str | Path) -> None:
    """Refuse a folder or a machine to which no report could be written, before anything long is done.

    Raises:
        InputError: the name is empty, a file's, or cannot be made a folder.
        MissingDependencyError: matplotlib is not installed.
    """
    require("matplotlib", needed_for="drawing the class distribution", extra="plots")
    if not str(folder).strip():
        raise InputError("the report's folder has an empty name")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the report's folder {str(folder)!r} cannot be made: {error.strerror}") from error


def write_report(folder: str | Path, stats: Stats, comparison: Comparison | None = None) -> None:
    """Write the report into ``folder``, which is made if need be; each file takes its place when it is whole.

    Raises:
        InputError, MissingDependencyError: as :func:`check_folder`.
    """
    check_folder(folder)
    with replace_file(Path(folder) / "stats.md") as file:
        file.write(as_markdown(stats, comparison))
    with replace_file(Path(folder) / "stats.json") as file:
        file.write(json.dumps(as_dict(stats, comparison), indent=1) + "\n")
    draw_classes(stats, Path(folder) / "stats.png")
