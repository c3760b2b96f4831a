"""What happens in a clip: drawn from a seed, every element at once, so that a clip can be asked about anything.

Time is counted in ticks, and a longer video has more of them, so that it needs more frames before nothing is missed.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tam_plugin.eval.taskworld.sprites import CAUSES, COLOR_NAMES, DIGITS, FEELINGS, IDS, SCENES, SHAPES, WEATHERS, Tile

GRID = 12
"""Tiles per side of a frame."""
SHORTEST_S, LONGEST_S = 2.0, 300.0
FLASH_COLORS = ("red", "green", "blue", "yellow")
TICKS = ((10.0, 8), (20.0, 16), (60.0, 32), (math.inf, 64))
"""Ticks of a clip shorter than so many seconds."""
FLASH_TICKS = {8: 1, 16: 3, 32: 2, 64: 3}
"""Length of a flash by the clip's ticks: the shortest that 8, 8, 18 and 32 uniformly spread frames cannot miss."""
SHARES = {
    8: ((4, 3, 1), (2, 2, 1)),
    16: ((9, 5, 2), (2, 2, 2)),
    32: ((14, 10, 8), (2, 2, 2)),
    64: ((28, 20, 16), (3, 3, 2)),
}
"""Ticks of the longest, second and third scene or weather, and in how many stretches, by the clip's ticks.

Who counts the policy's frames nearly always knows the longest; who counts 8 frames of a longer clip often does not.
"""
PLACES = ("sign", "tray", "face", "door", "flag")
SKY_ROWS, CELL_ROWS, ROAD_ROW, BALL_ROW, TRACK_ROW = (0, 1), (2, 4, 6), 8, 9, 10


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One clip.

    Attributes:
        seed: what it was drawn from.
        duration_s: seconds.
        num_ticks: steps of time, N.
        facts: what questions ask about, by name.
        still: tile ids ``[12, 12]`` of what never changes.
        tracks: tile ids ``[N]`` of single tiles that change, by (row, column).
        scenes: index of the scene, ``[N]``.
        weathers: tile id of the sky, ``[N]``.
    """

    seed: int
    duration_s: float
    num_ticks: int
    facts: dict[str, Any]
    still: np.ndarray
    scenes: np.ndarray
    weathers: np.ndarray
    tracks: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)


def draw_clip(seed: int, duration_s: float | None = None) -> Clip:
    """Draw a clip.

    Args:
        seed: decides everything.
        duration_s: seconds, or None for a draw between 2 and 300, even on a logarithmic scale.
    """
    rng = np.random.default_rng(seed)
    drawn = float(np.exp(rng.uniform(np.log(SHORTEST_S), np.log(LONGEST_S))))
    seconds = round(drawn, 1) if duration_s is None else duration_s
    ticks = next(count for limit, count in TICKS if seconds < limit)
    clip = Clip(
        seed=seed,
        duration_s=seconds,
        num_ticks=ticks,
        facts={},
        still=np.zeros((GRID, GRID), np.int64),
        scenes=np.zeros(ticks, np.int64),
        weathers=np.zeros(ticks, np.int64),
    )
    top, left = int(rng.choice(CELL_ROWS[:2])), 2 * int(rng.integers(0, GRID // 2 - 1))  # the lamp's four cells
    around = {(top + dy, left + dx) for dy in (0, 2) for dx in (0, 2)}
    cells = [(row, column) for row in CELL_ROWS for column in range(0, GRID, 2) if (row, column) not in around]
    places = [cells[i] for i in rng.permutation(len(cells))]
    _stills(clip, rng, places)
    _lamp(clip, rng, (top + int(rng.integers(0, 2)), left + int(rng.integers(0, 2))))
    _doors(clip, rng, places[5], places[6])
    _ball(clip, rng)
    _stops(clip, rng, "car", ROAD_ROW)
    _stops(clip, rng, "robot", TRACK_ROW)
    clip.scenes[:], clip.facts["scene"] = _segments(rng, ticks, list(SCENES))
    index, clip.facts["weather"] = _segments(rng, ticks, list(WEATHERS))
    clip.weathers[:] = np.array([IDS[Tile(name)] for name in WEATHERS])[index]
    return clip


def _stills(clip: Clip, rng: np.random.Generator, places: list[tuple[int, int]]) -> None:
    """Sign, tray, faces, two mats: each fills one cell of 2 × 2 tiles."""
    digits = [str(d) for d in rng.integers(0, len(DIGITS), 4)]
    _fill(clip, places[0], [Tile(f"digit {d}") for d in digits])
    shapes = [list(SHAPES)[i] for i in rng.permutation(4)]
    # Few colours, so that counts from 1 to 4 are equally frequent.
    count, main = int(rng.integers(1, 5)), str(rng.choice(COLOR_NAMES))
    others = [c for c in COLOR_NAMES if c != main]
    colors = [main] * count + [str(rng.choice(others)) for _ in range(4 - count)]
    colors = [colors[i] for i in rng.permutation(4)]
    _fill(clip, places[1], [Tile(s, c) for s, c in zip(shapes, colors, strict=True)])
    hairs = [COLOR_NAMES[i] for i in rng.permutation(6)[:2]]
    moods = [list(FEELINGS)[i] for i in rng.integers(0, 4, 2)]
    _fill(clip, places[2], [Tile("hair", h) for h in hairs] + [Tile(m, h) for m, h in zip(moods, hairs, strict=True)])
    mats = [COLOR_NAMES[i] for i in rng.permutation(6)[:2]]
    corners = [int(c) for c in rng.integers(0, 4, 2)]
    for place, mat, corner in zip(places[3:5], mats, corners, strict=True):
        _fill(clip, place, [Tile("dot" if i == corner else "mat", mat) for i in range(4)])
    clip.facts.update(
        digits=digits,
        shapes=dict(zip(shapes, colors, strict=True)),
        count=(main, count),
        feelings=dict(zip(hairs, moods, strict=True)),
        corners=dict(zip(mats, corners, strict=True)),
        places={"sign": places[0], "tray": places[1], "face": places[2], "door": places[5], "flag": places[6]},
    )


def _fill(clip: Clip, place: tuple[int, int], tiles: list[Tile]) -> None:
    """Four tiles in reading order."""
    for i, tile in enumerate(tiles):
        clip.still[place[0] + i // 2, place[1] + i % 2] = IDS[tile]


def _lamp(clip: Clip, rng: np.random.Generator, place: tuple[int, int]) -> None:
    """One to four flashes, each of another colour, at least a tick apart, of a lamp of 3 × 3 tiles.

    Of three tiles in a row every stride keeps one: pooling by interpolation reads the middle of a cell alone.
    """
    count, length = int(rng.integers(1, 5)), FLASH_TICKS[clip.num_ticks]
    spare = clip.num_ticks - count * length - (count - 1)
    cuts = np.sort(rng.integers(0, spare + 1, count))
    colors = [FLASH_COLORS[i] for i in rng.permutation(4)[:count]]
    lamp = np.full(clip.num_ticks, IDS[Tile("lamp")])
    for i, (cut, color) in enumerate(zip(cuts, colors, strict=True)):
        start = int(cut) + i * (length + 1)
        lamp[start : start + length] = IDS[Tile("lamp", color)]
    for i in range(9):
        clip.tracks[place[0] + i // 3, place[1] + i % 3] = lamp
    clip.facts.update(flashes=count, flash_colors=colors)


def _doors(clip: Clip, rng: np.random.Generator, door: tuple[int, int], flag: tuple[int, int]) -> None:
    """A door and a flag that change once, or never."""
    for name, place, states in (("door", door, ("open", "closed")), ("flag", flag, ("up", "down"))):
        first, last = (int(s) for s in rng.integers(0, 2, 2))
        at = int(rng.integers(max(1, clip.num_ticks // 5), clip.num_ticks - clip.num_ticks // 5))
        ids = [IDS[Tile(f"{name} {states[s]}")] for s in (first, last)]
        clip.tracks[place] = np.where(np.arange(clip.num_ticks) < at, *ids)
        clip.facts[name] = (first, last)


def _ball(clip: Clip, rng: np.random.Generator) -> None:
    """A ball that rolls left, rolls right, stays, or vanishes half way."""
    does, ticks = int(rng.integers(0, 4)), np.arange(clip.num_ticks)
    length = int(rng.integers(GRID // 2, 9))
    start = int(rng.integers({0: length}.get(does, 0), {1: GRID - length}.get(does, GRID)))
    step = np.round(ticks * length / max(1, clip.num_ticks - 1)).astype(int)
    columns = start + {0: -step, 1: step}.get(does, 0 * step)
    if does == 3:
        columns = np.where(ticks < int(rng.integers(clip.num_ticks // 3, clip.num_ticks * 2 // 3 + 1)), columns, -1)
    _lane(clip, BALL_ROW, "ball", columns)
    clip.facts["ball"] = does


def _lane(clip: Clip, row: int, kind: str, columns: np.ndarray) -> None:
    for column in range(GRID):
        there = columns == column
        if there.any():
            track = clip.tracks.setdefault((row, column), np.zeros(clip.num_ticks, np.int64))
            track[there] = IDS[Tile(kind)]


def _stops(clip: Clip, rng: np.random.Generator, kind: str, row: int) -> None:
    """Something drives to the right until another thing is in its way; a third thing stands behind it, harmless."""
    cause, other = (CAUSES[i] for i in rng.permutation(4)[:2])
    stop, begin = int(rng.integers(5, 10)), int(rng.integers(1, 3))
    at = int(rng.integers(clip.num_ticks // 4, clip.num_ticks * 2 // 3))
    ticks = np.arange(clip.num_ticks)
    moving = begin + np.round((stop - begin) * ticks / max(1, at)).astype(int)
    _lane(clip, row, kind, np.minimum(moving, stop))
    _lane(clip, row, cause, np.where(ticks >= at // 2, stop + 1, -1))
    _lane(clip, row, other, np.zeros(clip.num_ticks, int))
    clip.facts[kind] = cause


def _segments(rng: np.random.Generator, ticks: int, names: list[str]) -> tuple[np.ndarray, str]:
    """Three names in turn over stretches of time, one of them longest in all: index at each tick, its name."""
    chosen = rng.permutation(len(names))[:3]
    totals, stretches = SHARES[ticks]
    pieces = []
    for place, (total, count) in enumerate(zip(totals, stretches, strict=True)):
        cuts = [total * i // count for i in range(count + 1)]
        pieces += [(place, end - start) for start, end in itertools.pairwise(cuts)]
    index = np.concatenate([np.full(pieces[i][1], chosen[pieces[i][0]]) for i in rng.permutation(len(pieces))])
    return index, names[chosen[0]]
