"""Frames with what every patch shows, for the encoder's pretraining."""

from __future__ import annotations

import functools

import numpy as np
import torch

from tam_plugin.eval.taskworld.batches import encode
from tam_plugin.eval.taskworld.questions import CORNERS, ORDINALS
from tam_plugin.eval.taskworld.render import draw, encoder_input, tiles_of
from tam_plugin.eval.taskworld.sprites import COLOR_NAMES, FEELINGS, KINDS, SCENE_NAMES, TILES, WEATHERS, Tile
from tam_plugin.eval.taskworld.world import GRID, draw_clip

CLASSES = {"kind": len(KINDS), "color": 1 + len(COLOR_NAMES), "row": GRID, "column": GRID, "scene": len(SCENE_NAMES)}
"""What is labelled, with the number of classes."""
KIND_OF_TILE = torch.tensor([KINDS.index(tile.kind) for tile in TILES])
COLOR_OF_TILE = torch.tensor([1 + COLOR_NAMES.index(tile.color) if tile.color else 0 for tile in TILES])
NAMED = torch.tensor([tile.kind != "empty" for tile in TILES])
_IS_DOT = torch.tensor([tile.kind == "dot" for tile in TILES])
_IS_DIGIT = torch.tensor([tile.kind.startswith("digit") for tile in TILES])


def labelled_frames(seeds: range, frames_per_clip: int = 4) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Random frames of clips.

    Returns:
        Frames ``[B, 3, 72, 72]``; ``[B, 144]`` for each of :data:`CLASSES` and for ``thing``, where a patch shows one;
        ``names`` as :func:`names` gives them. The colour of a mouth is that of the hair above it.
    """
    pictures, tiles, scenes = [], [], []
    for seed in seeds:
        rng, clip = np.random.default_rng(seed + 1), draw_clip(seed)
        ticks = rng.integers(0, clip.num_ticks, frames_per_clip)
        pictures.append(encoder_input(draw(clip, ticks), rng))
        tiles.append(tiles_of(clip, ticks))
        scenes.append(clip.scenes[ticks])
    ids = torch.from_numpy(np.concatenate(tiles)).flatten(1)
    place = torch.arange(GRID * GRID).expand_as(ids)
    labels = {
        "kind": KIND_OF_TILE[ids],
        "color": COLOR_OF_TILE[ids],
        "row": place // GRID,
        "column": place % GRID,
        "scene": torch.from_numpy(np.concatenate(scenes))[:, None].expand_as(ids),
        "thing": NAMED[ids],
        "names": names(ids, torch.from_numpy(np.concatenate(scenes))),
    }
    return torch.cat(pictures), labels


def _own_words(tile: Tile) -> list[str]:
    """The words that a tile is named by wherever it lies."""
    if tile.kind in FEELINGS or tile.kind == "hair":
        return ["hair", tile.color or "", *([tile.kind] if tile.kind in FEELINGS else [])]
    if tile.kind in ("mat", "dot"):
        return ["mat", tile.color or "", *(["dot"] if tile.kind == "dot" else [])]
    if tile.kind == "lamp":
        return ["lamp", "flash", tile.color] if tile.color else ["lamp"]
    if tile.kind in WEATHERS:
        return ["weather", tile.kind]
    return [*tile.kind.split(), *([tile.color] if tile.color else [])]


@functools.cache
def _word_table() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of each tile ``[N, 3]``, of each corner's two words ``[4, 2]``, of ordinals and scenes; -1 where none."""

    def token(word: str) -> int:
        return encode(" " + word)[-1]

    own = torch.full((len(TILES), 3), -1)
    for i, tile in enumerate(TILES):
        for j, word in enumerate(_own_words(tile) if tile.kind != "empty" else []):
            own[i, j] = token(word)
    corners = torch.tensor([[token(word) for word in corner.split()] for corner in CORNERS])
    others = torch.tensor([token(word) for word in (*ORDINALS, *SCENE_NAMES)])
    return own, corners, others


def names(ids: torch.Tensor, scenes: torch.Tensor) -> torch.Tensor:
    """Tokens of the words for each patch, ``[B, 144, 5]``, -1 where there are fewer.

    A dot is named by its corner too, a digit by its place in reading order, empty ground by the scene.

    Args:
        ids: tile ids ``[B, 144]``.
        scenes: index of the scene, ``[B]``.
    """
    own, corners, others = _word_table()
    place = torch.arange(GRID * GRID)
    corner = (2 * (place // GRID % 2) + place % GRID % 2).expand_as(ids)
    where = torch.full((*ids.shape, 2), -1)
    dots, digits, ground = (flags[ids] for flags in (_IS_DOT, _IS_DIGIT, ~NAMED))
    where[dots] = corners[corner[dots]]
    where[..., 0][digits] = others[corner[digits]]
    where[..., 0][ground] = others[len(ORDINALS) + scenes[:, None].expand_as(ids)[ground]]
    return torch.cat([own[ids], where], dim=-1)
