"""Which experts the tokens took, by layer, task type and length of the video (Fig. 7), and how even it was (12b)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tam_plugin.errors import InputError
from tam_plugin.eval.report.figures import HATCHES, MARKERS, SHADES, drawing
from tam_plugin.eval.report.names import decided_label, in_order, title

LENGTHS = {"short": "short, under 30 s", "medium": "medium", "long": "long, over 180 s"}
OTHER = "no task type"

Counts = dict[tuple[str, str], np.ndarray]
"""Task type and length class → ``[L, E]`` tokens."""


def sum_counts(records: Sequence[Mapping[str, Any]], name: str) -> Counts:
    """Tokens by task type and length class.

    Args:
        records: lines of the routing log.
        name: the run's, for messages.

    Raises:
        InputError: a line's counts are no ``[L, E]`` of all the others' size.
    """
    sums: Counts = {}
    shape = None
    for record in records:
        where = f"routing log of {name}: task {record['task']}, row {record['doc_id']}"
        try:
            counts = np.asarray(record["counts"], dtype=np.float64)
            key = (decided_label(record) or OTHER, str(record["length_class"]))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{where} cannot be read: {error}") from error
        shape = shape or counts.shape
        if counts.ndim != 2 or not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum(axis=1).all()):
            raise InputError(f"{where}: counts {record['counts']!r:.60}: expected numbers >= 0 of layers × experts")
        if counts.shape != shape or key[1] not in LENGTHS:
            raise InputError(
                f"{where} has counts of {list(counts.shape)} and length class {key[1]!r}: expected layers × experts as "
                f"the first line has ({list(shape)}) and one of {', '.join(LENGTHS)}"
            )
        sums[key] = sums.get(key, 0) + counts
    return sums


def balance(counts: np.ndarray) -> np.ndarray:
    """``[L]``: E·Σ f² of each layer's shares f; 1 where all experts take alike, E where one takes all."""
    load = counts / counts.sum(axis=1, keepdims=True)
    return counts.shape[1] * (load**2).sum(axis=1)


def draw_heatmap(path: Path, sums: Counts) -> None:
    """A panel of layers × experts for each task type and length class; darker took more (Fig. 7)."""
    loads = {key: counts / counts.sum(axis=1, keepdims=True) for key, counts in sums.items()}
    found = {key[0] for key in sums}
    labels = [OTHER] if found == {OTHER} else in_order(found)
    layers, experts = next(iter(loads.values())).shape
    top = max(load.max() for load in loads.values())
    with drawing(path, max(9.0, 2.5 * len(labels)), 12) as figure:
        panels = figure.subplots(len(LENGTHS), len(labels), squeeze=False)
        for row, (length, words) in zip(panels, LENGTHS.items(), strict=True):
            for axes, label in zip(row, labels, strict=True):
                load = loads.get((label, length))
                axes.set_xticks([])
                axes.set_yticks([])
                if load is None:
                    axes.text(0.5, 0.5, "none", ha="center", va="center", transform=axes.transAxes)
                    continue
                image = axes.imshow(load, cmap="Greys", vmin=0, vmax=top, aspect="auto")
                axes.set_xticks(range(experts), [str(expert + 1) for expert in range(experts)])
                ticks = sorted({0, layers // 2, layers - 1})
                axes.set_yticks(ticks, [str(tick + 1) for tick in ticks] if axes is row[0] else [])
            row[0].set_ylabel(f"{words}\nlayer")
        for axes, label in zip(panels[0], labels, strict=True):
            axes.set_title(title(label).replace(" ", "\n"), fontsize=19)
        figure.supxlabel("expert")
        figure.colorbar(image, ax=panels, label="share of the layer's assignments", shrink=0.7)


def draw_balance(path: Path, sums: Counts) -> None:
    """Shares of the experts by layer, stacked, over the balance of each layer (Fig. 12b)."""
    counts = np.sum(list(sums.values()), axis=0)
    layers, experts = counts.shape
    load = counts / counts.sum(axis=1, keepdims=True)
    places = np.arange(1, layers + 1)
    with drawing(path, 12, 10) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        below = np.zeros(layers)
        for expert in range(experts):
            style = {"color": SHADES[expert % len(SHADES)], "hatch": HATCHES[expert % len(HATCHES)]}
            upper.bar(places, load[:, expert], 0.8, below, edgecolor="black", label=f"expert {expert + 1}", **style)
            below += load[:, expert]
        for share in range(1, experts):
            upper.axhline(share / experts, color="black", linestyle="--", linewidth=1.5)
        upper.set_ylabel("share of assignments")
        upper.set_ylim(0, 1)
        lower.plot(places, balance(counts), MARKERS[0] + "-", color="black", linewidth=3, markersize=11)
        lower.axhline(1, color="black", linestyle="--", linewidth=1.5)
        lower.set_ylim(0, experts)
        lower.set_ylabel(f"E·Σ f² (1 even,\n{experts} one expert)")
        lower.set_xlabel("layer of the vision tower")
        lower.set_xticks(places if layers <= 14 else places[::2])
        figure.legend(loc="outside upper center", ncols=4)
