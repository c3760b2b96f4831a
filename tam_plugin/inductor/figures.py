"""Pictures of an Inductor's figures; readable in grey and at half size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tam_plugin.errors import require


def _axes(width: float, height: float):
    require("matplotlib", needed_for="drawing figures", extra="plots")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def confusion(counts: Sequence[Sequence[int]], tasks: Sequence[tuple[int, str]], path: Path) -> None:
    """Draw a confusion matrix ``[N][N]`` of counts, rows are labels, as shares of the row (Tab. 6).

    Args:
        counts: the matrix.
        tasks: index and label of each task type.
        path: the PNG.
    """
    figure, axes = _axes(8.5, 6.5)
    shares = [[c / max(1, sum(row)) for c in row] for row in counts]
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axes.text(j, i, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=12)
    labels = [f"{index} {label}".replace("$", r"\$") for index, label in tasks]  # no formulas
    totals = [f"{label} ({sum(row)})" for label, row in zip(labels, counts, strict=True)]
    axes.set_yticks(range(len(labels)), totals, fontsize=11)
    axes.set_xticks(range(len(labels)), [str(index) for index, _ in tasks], fontsize=13)
    axes.set_xlabel("predicted task type", fontsize=13)
    axes.set_ylabel("label (rows)", fontsize=13)
    figure.savefig(path, dpi=110)


def calibration(buckets: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over confidence by bucket, with the number of queries in each (Tab. 4a)."""
    figure, axes = _axes(6.5, 5)
    centres = [sum(bucket["range"]) / 2 for bucket in buckets]
    width = buckets[0]["range"][1] - buckets[0]["range"][0]
    heights = [bucket["accuracy"] for bucket in buckets]
    axes.bar(centres, heights, width=0.9 * width, color="0.7", edgecolor="black", label="accuracy")
    axes.plot([0, 1], [0, 1], "--", color="black", label="confidence = accuracy")
    axes.plot([b["confidence"] for b in buckets], heights, "o", color="black", markersize=8, label="mean confidence")
    for centre, bucket in zip(centres, buckets, strict=True):
        axes.text(centre, 0.03, str(bucket["count"]), ha="center", fontsize=13)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence", fontsize=14)
    axes.set_ylabel("accuracy (queries below)", fontsize=14)
    axes.tick_params(labelsize=12)
    axes.legend(fontsize=12, loc="upper left")
    figure.savefig(path, dpi=110)
