"""The class distribution as a picture: a stacked bar for each task type, by source."""

from __future__ import annotations

import textwrap
from pathlib import Path

from tam_plugin.errors import require
from tam_plugin.inductor.data.stats import Stats
from tam_plugin.storage import replace_file

MOST_SOURCES = 7
"""Sources with a shade of their own; the rest are drawn as one."""
_GREYS = ("0.15", "0.82", "0.45", "0.95", "0.30", "0.65", "0.90", "1.00")
_HATCHES = ("", "", "///", "...", "xxx", "\\\\\\", "---", "++")


def draw_classes(stats: Stats, path: str | Path) -> None:
    """Write the picture as PNG, 8 inches wide at 150 dots an inch; it reads in grey and at half its size.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    require("matplotlib", needed_for="drawing the class distribution", extra="plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    rows = stats.rows
    figure = Figure(figsize=(8, 0.55 * len(rows) + 1.7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    left = [0] * len(rows)
    for (name, counts), grey, hatch in zip(_series(stats), _GREYS, _HATCHES, strict=False):
        ink = "white" if float(grey) < 0.5 else "black"
        axes.barh(range(len(rows)), counts, left=left, height=0.72, color=grey, hatch=hatch, edgecolor=ink, label=name)
        left = [a + b for a, b in zip(left, counts, strict=True)]
    axes.barh(range(len(rows)), left, height=0.72, color="none", edgecolor="black", linewidth=1)
    for place, total in enumerate(left):
        axes.annotate(f"{total:,}", (total, place), (5, 0), textcoords="offset points", va="center", fontsize=13)
    axes.set_yticks(range(len(rows)), [textwrap.fill(name, 24) for name, _ in rows], fontsize=13)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.14 * max(left))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.tick_params(axis="x", labelsize=13)
    axes.set_xlabel("Queries", fontsize=14)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=13, frameon=False, handlelength=2.2)
    with replace_file(path, binary=True) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})


def _series(stats: Stats) -> list[tuple[str, list[int]]]:
    """Name and counts (one a task type) of each shade, the largest source first."""
    keys = [key for _, key in stats.rows]
    sources = stats.sources
    own = sources if len(sources) <= MOST_SOURCES + 1 else sources[:MOST_SOURCES]
    series = [(textwrap.shorten(name, 28, placeholder="…"), [stats.cells[key, name] for key in keys]) for name in own]
    if len(own) < len(sources):
        rest = sources[len(own) :]
        counts = [sum(stats.cells[key, name] for name in rest) for key in keys]
        series.append((f"{len(rest)} other sources", counts))
    return series
