"""Tables of the experiment from ``results.jsonl``: accuracy by task type, length and seed; changes beside the paper's.

python -m tam_plugin.eval.taskworld.tables RESULTS.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tam_plugin.eval.taskworld.arms import SWITCHED, TRAINED
from tam_plugin.taxonomy import length_class

LENGTHS = ("short", "medium", "long")
"""Length classes of the paper's analysis."""
DRAWS = 1000

Row = dict[str, Any]


def accuracy(rows: Iterable[Row]) -> float:
    """Mean over task types of the mean over kinds of the share answered right; NaN without rows."""
    types: dict[int, dict[str, list[bool]]] = {}
    for row in rows:
        types.setdefault(row["task"], {}).setdefault(row["kind"], []).append(row["right"])
    each = [np.mean([np.mean(right) for right in kinds.values()]) for kinds in types.values()]
    return float(np.mean(each)) if each else float("nan")


def interval(runs: list[list[Row]], seed: int = 0) -> float:
    """Half the width of the 95 % interval of the runs' mean accuracy.

    Of one run: clips drawn again with replacement. Of several: that, and runs drawn again too.
    """
    rng = np.random.default_rng(seed)
    clips = [list(_by_clip(rows).values()) for rows in runs]
    found = []
    for _ in range(DRAWS):
        drawn = [clips[i] for i in rng.integers(0, len(clips), len(clips))]
        means = [accuracy([r for i in rng.integers(0, len(run), len(run)) for r in run[i]]) for run in drawn]
        found.append(np.mean(means))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(high - low) / 2


def _by_clip(rows: list[Row]) -> dict[int, list[Row]]:
    clips: dict[int, list[Row]] = {}
    for row in rows:
        clips.setdefault(row["seed"], []).append(row)
    return clips


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown: a row an arm, its accuracy over all, by task type 1–8, and by length class."""
    arms: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        arms.setdefault(line["arm"], []).append(line)
    head = ["arm", "Tab.", "seeds", "tokens", "all", *map(str, range(1, 9)), *LENGTHS]
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, runs in arms.items():
        rows = [run["rows"] for run in runs]
        cells = [arm, runs[0]["table"], str(len(runs)), f"{np.mean([run['mean_visual_tokens'] for run in runs]):.0f}"]
        cells.append(f"{_percent(rows)} ± {100 * interval(rows):.1f}")
        cells += [_percent([[r for r in run if r["task"] == task] for run in rows]) for task in range(1, 9)]
        cells += [
            _percent([[r for r in run if length_class(r["duration_s"]) == name] for run in rows]) for name in LENGTHS
        ]
        out.append("| " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"


def by_seed(lines: list[dict[str, Any]]) -> str:
    """Markdown: a row an arm, its accuracy in each seed, with intervals over that seed's clips alone; – if not run."""
    found = {(line["arm"], line["seed"]): line["rows"] for line in lines}
    seeds = sorted({seed for _, seed in found})
    out = ["| " + " | ".join(["arm", *(f"seed {seed}" for seed in seeds)]) + " |", "|" + "---|" * (1 + len(seeds))]
    for arm in dict.fromkeys(arm for arm, _ in found):
        runs = [found.get((arm, seed)) for seed in seeds]
        cells = [f"{_percent([rows])} ± {100 * interval([rows]):.1f}" if rows else "–" for rows in runs]
        out.append("| " + " | ".join([arm, *cells]) + " |")
    return "\n".join(out) + "\n"


def beside_the_paper(lines: list[dict[str, Any]]) -> str:
    """Markdown: each arm's relative change against its reference, its interval, the paper's, and whether signs agree.

    A sign is told only where the interval leaves out zero.
    """
    runs: dict[str, dict[int, list[Row]]] = {}
    for line in lines:
        runs.setdefault(line["arm"], {})[line["seed"]] = line["rows"]
    out = ["| Tab. | the paper's row | against | ours, % | the paper's, % | same sign |", "|---|---|---|---|---|---|"]
    for arm in (*TRAINED, *SWITCHED):
        seeds = sorted(set(runs.get(arm.name, {})) & set(runs.get(arm.against or "", {})))
        if not seeds:
            continue
        change, half = relative_change([(runs[arm.against or ""][s], runs[arm.name][s]) for s in seeds])
        paper = arm.paper_percent
        same = "not told" if abs(change) <= half else "yes" if paper and change * paper > 0 else "no"
        cells = [arm.table, f"{arm.row} ({arm.name})", str(arm.against), f"{change:+.1f} ± {half:.1f}"]
        out.append(
            "| " + " | ".join([*cells, "–" if paper is None else f"{paper:+.1f}", same if paper else "–"]) + " |"
        )
    return "\n".join(out) + "\n"


def relative_change(pairs: list[tuple[list[Row], list[Row]]], seed: int = 0) -> tuple[float, float]:
    """Mean relative change of accuracy in percent from a reference to an arm, and half its 95 % interval.

    Both saw the same clips, which are drawn again together; with several seeds, so are the seeds.
    """
    rng = np.random.default_rng(seed)
    clips = [[_by_clip(rows) for rows in pair] for pair in pairs]

    def change(first: list[Row], second: list[Row]) -> float:
        return 100 * (accuracy(second) / accuracy(first) - 1)

    found = []
    for _ in range(DRAWS):
        changes = []
        for i in rng.integers(0, len(clips), len(clips)):
            names = list(clips[i][0])
            drawn = [names[j] for j in rng.integers(0, len(names), len(names))]
            changes.append(change(*([row for name in drawn for row in side[name]] for side in clips[i])))
        found.append(np.mean(changes))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(np.mean([change(*pair) for pair in pairs])), float(high - low) / 2


def _percent(runs: list[list[Row]]) -> str:
    return f"{100 * np.mean([accuracy(run) for run in runs]):.1f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    order = [run.name for arm in TRAINED for run in (arm, *SWITCHED) if arm.name in (run.name, run.of)]
    lines = [json.loads(line) for line in args.results.read_text().splitlines()]
    lines.sort(key=lambda line: (order.index(line["arm"]), line["seed"]))
    print(table(lines), by_seed(lines), beside_the_paper(lines), sep="\n", end="")


if __name__ == "__main__":
    main()
