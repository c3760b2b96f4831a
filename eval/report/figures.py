"""Pictures of a report: told apart in grey by line, marker and hatch, and large enough to read at half size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tam_plugin.errors import require

FONT = 19
"""Points; half of it is still legible."""
DPI = 72
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "//", "..", "xx", "--", "\\\\", "++", "oo")
SHADES = ("0.2", "0.75", "0.5", "0.9", "0.35", "0.6", "0.82", "0.45")


@contextmanager
def drawing(path: Path, width: float, height: float) -> Iterator[Any]:
    """A figure of this many inches, that is saved on leaving.

    Raises:
        MissingDependencyError: matplotlib is not there.
    """
    require("matplotlib", needed_for="drawing a report's figures", extra="plots")
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with rc_context({"font.size": FONT, "hatch.linewidth": 1.5}):
        figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(h_pad=0.15, w_pad=0.1))
        yield figure
        figure.savefig(path, dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})


def bars(
    path: Path, groups: Sequence[str], series: Mapping[str, Sequence[float]], counts: Sequence[int], label: str
) -> None:
    """Accuracy of each series by group; the groups' numbers of rows stand under their names."""
    with drawing(path, 11, 6.5) as figure:
        axes = figure.subplots()
        width = 0.8 / len(series)
        for number, (name, values) in enumerate(series.items()):
            places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(groups))]
            style = {"color": ("0.35", "0.9")[number % 2], "hatch": HATCHES[number % len(HATCHES)]}
            axes.bar(places, values, width, edgecolor="black", label=name, **style)
            for place, value in zip(places, values, strict=True):
                if not math.isnan(value):
                    axes.text(place, value + 0.015, f"{value:.2f}", ha="center")
        names = [f"{group}\nn = {count}" for group, count in zip(groups, counts, strict=True)]
        axes.set_xticks(range(len(groups)), names)
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy")
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_ylim(0, 1.1)
        figure.legend(loc="outside upper center", ncols=2)


def radar(path: Path, spokes: Sequence[str], series: Mapping[str, Sequence[float]]) -> None:
    """Accuracy by spoke; a spoke without rows breaks the line."""
    angles = [2 * math.pi * number / len(spokes) for number in range(len(spokes))]
    with drawing(path, 12, 9) as figure:
        axes = figure.subplots(subplot_kw={"projection": "polar"})
        axes.set_theta_offset(math.pi / 2)
        axes.set_theta_direction(-1)
        for number, (name, values) in enumerate(series.items()):
            axes.plot(
                [*angles, angles[0]],
                [*values, values[0]],
                linestyle=LINES[number % len(LINES)],
                marker=MARKERS[number % len(MARKERS)],
                color=("black", "0.5")[number % 2],
                markerfacecolor=("black", "white")[number % 2],
                linewidth=3,
                markersize=13,
                label=name,
            )
        axes.set_xticks(angles, spokes)
        for angle, text in zip(angles, axes.get_xticklabels(), strict=True):
            side = math.sin(angle)
            text.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
            if abs(side) < 0.1:  # above the circle or below it
                text.set_verticalalignment("bottom" if math.cos(angle) > 0 else "top")
        top = max((value for values in series.values() for value in values if not math.isnan(value)), default=0.0)
        limit = min(1.0, 0.2 * math.ceil(max(top, 0.2) / 0.2 + 1e-9))
        axes.set_ylim(0, limit)
        circles = [limit / 4, limit / 2, 3 * limit / 4, limit]
        axes.set_yticks(circles, [""] * len(circles))
        for circle in circles:  # the axis' own figures would lie under the lines
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(angles[1] / 2, circle, f"{circle:g}", ha="center", va="center", bbox=box, zorder=5)
        figure.legend(loc="outside lower center", ncols=2)


def points(path: Path, runs: Mapping[str, tuple[float, float]]) -> None:
    """Accuracy over operations, one marker per run."""
    scale, unit = (1e9, "GFLOPs") if max(flops for flops, _ in runs.values()) < 1e12 else (1e12, "TFLOPs")
    with drawing(path, 11, 6.5) as figure:
        axes = figure.subplots()
        for number, (name, (flops, accuracy)) in enumerate(runs.items()):
            fill = "black" if number % 2 == 0 else "white"
            marker = MARKERS[number % len(MARKERS)]
            axes.plot(flops / scale, accuracy, marker, color="black", markerfacecolor=fill, markersize=17, label=name)
        axes.set_xlabel(f"{unit} per request (mean)")
        axes.set_ylabel("accuracy, mean over tasks")
        axes.margins(0.25)
        axes.grid(alpha=0.4)
        figure.legend(loc="outside upper center", ncols=3)
