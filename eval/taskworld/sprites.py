"""The tiles that a TaskWorld frame is made of: 6 × 6 pixels each, with what they show as labels.

A frame is a grid of 12 × 12 tiles, so that a tile is one patch of the encoder. Legend of the pictures: ``#`` the
tile's colour, ``.`` what lies behind it, ``o`` black, ``w`` white, ``+`` the tile's second colour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TILE = 6
"""Pixels per side of a tile."""

COLORS = {
    "red": (214, 44, 44),
    "green": (40, 160, 70),
    "blue": (50, 80, 215),
    "yellow": (240, 205, 40),
    "purple": (150, 60, 185),
    "orange": (245, 135, 30),
}
SKIN, PLATE, TRAY, DARK, LIGHT = (238, 200, 160), (250, 250, 240), (196, 160, 120), (40, 40, 44), (250, 250, 250)

DIGITS: dict[str, tuple[str, ...]] = {
    "0": ("ooo", "o.o", "o.o", "o.o", "ooo"),
    "1": (".o.", "oo.", ".o.", ".o.", "ooo"),
    "2": ("ooo", "..o", "ooo", "o..", "ooo"),
    "3": ("ooo", "..o", ".oo", "..o", "ooo"),
    "4": ("o.o", "o.o", "ooo", "..o", "..o"),
    "5": ("ooo", "o..", "ooo", "..o", "ooo"),
    "6": ("o..", "o..", "ooo", "o.o", "ooo"),
    "7": ("ooo", "..o", "..o", ".o.", ".o."),
    "8": ("ooo", "o.o", "ooo", "o.o", "ooo"),
    "9": ("ooo", "o.o", "ooo", "..o", "..o"),
}
SHAPES: dict[str, tuple[str, ...]] = {
    "circle": (".##.", "####", "####", ".##."),
    "square": ("####", "#..#", "#..#", "####"),
    "triangle": (".##.", ".##.", "####", "####"),
    "cross": ("#..#", ".##.", ".##.", "#..#"),
}
FEELINGS: dict[str, tuple[str, ...]] = {
    "happy": ("......", "o....o", "oo..oo", ".oooo."),
    "sad": ("......", ".oooo.", "oo..oo", "o....o"),
    "surprised": ("..oo..", ".o..o.", ".o..o.", "..oo.."),
    "angry": ("oooooo", "owowow", "wowowo", "oooooo"),
}
PICTURES = {
    "hair": ("######", "######", "++++++", "+o++o+", "+o++o+", "++++++"),
    "lamp": (".####.", "######", "######", ".####.", "..oo..", "..oo.."),
    "door open": ("######", "#oooo.", "#oooo.", "#oooo.", "#oooo.", "#oooo."),
    "door closed": ("######", "######", "####w#", "####w#", "######", "######"),
    "flag up": ("o####.", "o####.", "o####.", "o.....", "o.....", "o....."),
    "flag down": ("o.....", "o.....", "o.....", "o####.", "o####.", "o####."),
    "ball": (".####.", "##ww##", "#w####", "######", "######", ".####."),
    "car": ("......", ".####.", ".#ww##", "######", ".o..o.", "......"),
    "robot": ("..oo..", ".####.", ".#oo#.", "######", ".####.", ".#..#."),
    "cat": ("o...o.", "oo.oo.", "ooooo.", "owowo.", "ooooo.", ".ooo.."),
    "wall": ("oo#oo#", "######", "o#oo#o", "######", "oo#oo#", "######"),
    "cone": ("..##..", "..##..", ".wwww.", ".####.", "######", "######"),
    "tree": (".####.", "######", "######", ".####.", "..oo..", "..oo.."),
    "sunny": ("#.##.#", ".####.", "######", "######", ".####.", "#.##.#"),
    "rainy": ("#..#..", "#..#..", "..#..#", "..#..#", "#..#..", "#..#.."),
    "windy": ("......", "####..", "......", "..####", "......", "####.."),
    "foggy": ("######", "......", "######", "......", "######", "......"),
}
FIXED_COLORS = {
    "door open": (130, 80, 40),
    "door closed": (130, 80, 40),
    "flag up": (225, 60, 120),
    "flag down": (225, 60, 120),
    "ball": (235, 90, 40),
    "car": (30, 110, 190),
    "robot": (140, 150, 165),
    "cat": DARK,
    "wall": (170, 70, 50),
    "cone": (250, 120, 20),
    "tree": (30, 120, 50),
    "sunny": (255, 215, 60),
    "rainy": (40, 70, 150),
    "windy": (250, 250, 250),
    "foggy": (205, 205, 210),
}
SCENES = {
    "beach": ((236, 214, 160), (226, 200, 140)),
    "forest": ((104, 150, 92), (90, 134, 80)),
    "lake": ((110, 170, 220), (96, 154, 206)),
    "city": ((156, 156, 162), (140, 140, 148)),
    "snow": ((240, 244, 250), (226, 232, 242)),
    "cave": ((92, 76, 92), (78, 64, 80)),
}


@dataclass(frozen=True)
class Tile:
    """What a tile shows.

    Attributes:
        kind: the thing, such as ``digit 4`` or ``lamp``.
        color: a name of :data:`COLORS`, or None where the colour says nothing.
    """

    kind: str
    color: str | None = None


def _rgba(rows: tuple[str, ...], color, second=SKIN, behind=None) -> np.ndarray:
    """``[6, 6, 4]`` of a picture, centred."""
    out = np.zeros((TILE, TILE, 4), np.uint8)
    if behind is not None:
        out[:] = (*behind, 255)
    top, left = (TILE - len(rows)) // 2, (TILE - len(rows[0])) // 2
    ink = {"#": color, "o": DARK, "w": LIGHT, "+": second}
    for y, row in enumerate(rows):
        for x, mark in enumerate(row):
            if mark != ".":
                out[top + y, left + x] = (*ink[mark], 255)
    return out


def _all_tiles() -> dict[Tile, np.ndarray]:
    tiles = {Tile("empty"): np.zeros((TILE, TILE, 4), np.uint8)}
    for digit, rows in DIGITS.items():
        tiles[Tile(f"digit {digit}")] = _rgba(rows, DARK, behind=PLATE)
    for color, rgb in COLORS.items():
        for shape, rows in SHAPES.items():
            tiles[Tile(shape, color)] = _rgba(rows, rgb, behind=TRAY)
        tiles[Tile("hair", color)] = _rgba(PICTURES["hair"], rgb)
        tiles[Tile("lamp", color)] = _rgba(PICTURES["lamp"], rgb)
        tiles[Tile("mat", color)] = _rgba(("######",) * TILE, rgb)
        tiles[Tile("dot", color)] = _rgba(("######", "#wwww#", "#woow#", "#woow#", "#wwww#", "######"), rgb)
        for feeling, rows in FEELINGS.items():  # the mouth of the person with hair of this colour
            tiles[Tile(feeling, color)] = _rgba(rows, DARK, behind=SKIN)
    tiles[Tile("lamp")] = _rgba(PICTURES["lamp"], (95, 95, 100))
    for kind, rgb in FIXED_COLORS.items():
        tiles[Tile(kind)] = _rgba(PICTURES[kind], rgb)
    return tiles


_TILES = _all_tiles()
TILES: tuple[Tile, ...] = tuple(_TILES)
"""Every tile; its place here is its id."""
IDS: dict[Tile, int] = {tile: number for number, tile in enumerate(TILES)}
ATLAS: np.ndarray = np.stack(list(_TILES.values()))
"""Pictures of the tiles, uint8 ``[N, 6, 6, 4]``, the last channel 255 where the tile hides what lies behind."""
KINDS: tuple[str, ...] = tuple(dict.fromkeys(tile.kind for tile in TILES))
COLOR_NAMES: tuple[str, ...] = tuple(COLORS)
SCENE_NAMES: tuple[str, ...] = tuple(SCENES)
WEATHERS = ("sunny", "rainy", "windy", "foggy")
CAUSES = ("cat", "wall", "cone", "tree")
