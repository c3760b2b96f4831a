"""Tables of the experiment from ``results.jsonl``: accuracy by task type, length and seed; changes beside the paper's.

python -m tam_plugin.eval.taskworld.tables RESULTS.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tam_plugin.eval.taskworld.arms import SWITCHED, TRAINED, runs_of
from tam_plugin.storage import read_journal
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


@dataclass(frozen=True)
class Counted:
    """Rows as counts, for drawing clips again: ``right`` and ``asked`` ``[C, K]`` by clip and kind of question.

    Attributes:
        clips: seeds of the clips, ``C`` of them.
        type_of: ``[K, T]``, 1 where a kind is of a task type.
    """

    clips: tuple[int, ...]
    right: np.ndarray
    asked: np.ndarray
    type_of: np.ndarray

    @classmethod
    def of(cls, rows: list[Row], clips: Iterable[int] | None = None) -> Counted:
        """Counts rows; clips in the order of ``clips``, or of the rows."""
        names = tuple(dict.fromkeys(row["seed"] for row in rows) if clips is None else clips)
        kinds = {key: i for i, key in enumerate(sorted({(row["task"], row["kind"]) for row in rows}))}
        tasks = sorted({task for task, _ in kinds})
        places = {name: i for i, name in enumerate(names)}
        right, asked = np.zeros((len(names), len(kinds))), np.zeros((len(names), len(kinds)))
        for row in rows:
            at = places[row["seed"]], kinds[row["task"], row["kind"]]
            right[at] += row["right"]
            asked[at] += 1
        return cls(names, right, asked, np.array([[task == t for t in tasks] for task, _ in kinds], float))

    def accuracy(self, drawn: np.ndarray) -> float:
        """:func:`accuracy` of clips drawn again, places ``[N]``; a kind that none of them was asked does not count."""
        times = np.bincount(drawn, minlength=len(self.clips))
        asked = times @ self.asked
        share = np.divide(times @ self.right, asked, out=np.zeros_like(asked), where=asked > 0)
        kinds = (asked > 0) @ self.type_of
        return float(((share @ self.type_of)[kinds > 0] / kinds[kinds > 0]).mean())


def interval(runs: list[list[Row]], seed: int = 0) -> float:
    """Half the width of the 95 % interval of the runs' mean accuracy.

    Of one run: clips drawn again with replacement. Of several: that, and runs drawn again too.
    """
    rng = np.random.default_rng(seed)
    counted = [Counted.of(rows) for rows in runs]
    found = []
    for _ in range(DRAWS):
        drawn = [counted[i] for i in rng.integers(0, len(runs), len(runs))]
        found.append(np.mean([run.accuracy(_again(rng, run)) for run in drawn]))
    return _half(found)


def _again(rng: np.random.Generator, run: Counted) -> np.ndarray:
    return rng.integers(0, len(run.clips), len(run.clips))


def _half(found: list[float]) -> float:
    low, high = np.percentile(found, [2.5, 97.5])
    return float(high - low) / 2


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
    counted = []
    for reference, arm in pairs:
        first = Counted.of(reference)
        counted.append((first, Counted.of(arm, first.clips)))
    found = []
    for _ in range(DRAWS):
        changes = []
        for i in rng.integers(0, len(pairs), len(pairs)):
            first, second = counted[i]
            drawn = _again(rng, first)
            changes.append(100 * (second.accuracy(drawn) / first.accuracy(drawn) - 1))
        found.append(np.mean(changes))
    whole = [100 * (accuracy(arm) / accuracy(reference) - 1) for reference, arm in pairs]
    return float(np.mean(whole)), _half(found)


def _percent(runs: list[list[Row]]) -> str:
    return f"{100 * np.mean([accuracy(run) for run in runs]):.1f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    args = parser.parse_args()
    order = [run.name for arm in TRAINED for run in runs_of(arm)]
    lines = [line.record for line in read_journal(args.results)]
    lines.sort(key=lambda line: (order.index(line["arm"]), line["seed"]))
    print(table(lines), by_seed(lines), beside_the_paper(lines), sep="\n", end="")


if __name__ == "__main__":
    main()
