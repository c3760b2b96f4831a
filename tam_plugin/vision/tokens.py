"""From patch features of a whole batch to each sample's visual tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from tam_plugin.budget.reducers import reducer_named
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.vision.pooling import pool_tokens
from tam_plugin.vision.projector import ResolutionProjectors

UNPOOLED = 1
"""The stride at which pooling leaves a frame as it is."""


def frames_to_tokens(
    features: torch.Tensor,
    frames_per_video: Sequence[int],
    strides: Sequence[int | None],
    projectors: ResolutionProjectors,
) -> list[torch.Tensor]:
    """Pool and project the frames of several videos, each by its own stride.

    Videos that share stride and projector share one pooling and one projector call. Stride, pool mode and the
    order of pooling and projection come from ``projectors.config``.

    Args:
        features: ``[sum of frames, G*G, D]``, the videos' frames one after another.
        frames_per_video: frames of each video, T_i.
        strides: pooling stride of each video, s_i; None for a still image, which takes the projector of
            ``projectors.config.image_stride`` and is not pooled.
        projectors: one per stride.

    Returns:
        For each video ``[T_i, h_i*h_i, D_llm]``, in order; h_i is G for an image. A token reducer
        (``projectors.config.reducer``) leaves fewer of a video's.

    Raises:
        InputError: counts that do not match the features, or an unknown stride.
        ConfigError: the token reducer leaves other tokens than it says.
    """
    if len(frames_per_video) != len(strides):
        raise InputError(f"{len(strides)} strides for {len(frames_per_video)} videos: expected one per video")
    if sum(frames_per_video) != features.shape[0] or min(frames_per_video, default=0) < 0:
        raise InputError(
            f"frames_per_video {list(frames_per_video)} for features of {features.shape[0]} frames: expected counts "
            "that add up"
        )
    config = projectors.config
    groups: dict[tuple[str, int], list[int]] = {}
    for video, stride in enumerate(strides):
        child = projectors.select(config.image_stride if stride is None else stride)
        groups.setdefault((child, stride or UNPOOLED), []).append(video)

    videos = features.split(list(frames_per_video)) if frames_per_video else ()
    inputs = [videos[m[0]] if len(m) == 1 else torch.cat([videos[v] for v in m]) for m in groups.values()]
    pool_first = config.pool_order == "before_projector"
    if pool_first:
        inputs = [pool_tokens(x, s, config.pool_mode) for x, (_, s) in zip(inputs, groups, strict=True)]
    outputs = projectors(*inputs, children=[name for name, _ in groups]) if inputs else ()
    if not pool_first:
        outputs = [pool_tokens(x, s, config.pool_mode) for x, (_, s) in zip(outputs, groups, strict=True)]

    tokens: dict[int, torch.Tensor] = {}
    for members, out in zip(groups.values(), outputs, strict=True):
        tokens.update(zip(members, out.split([frames_per_video[v] for v in members]), strict=True))
    if config.reducer is None:
        return [tokens[video] for video in range(len(strides))]
    return [
        tokens[video] if stride is None else _reduced(tokens[video], config.reducer)
        for video, stride in enumerate(strides)
    ]


def _reduced(tokens: torch.Tensor, name: str) -> torch.Tensor:
    """One video's tokens after the token reducer, which must leave what it said: the budget was counted by that.

    Raises:
        ConfigError: it left something else.
    """
    reducer = reducer_named(name)
    reduced = reducer(tokens)
    said = (*reducer.shape(*tokens.shape[:2]), tokens.shape[2])
    if tuple(reduced.shape) != said:
        raise ConfigError(
            f"token reducer {name!r} made {list(reduced.shape)} of {list(tokens.shape)}; its shape() says {list(said)}"
        )
    return reduced


def with_newlines(tokens: torch.Tensor, newline: torch.Tensor, position: str) -> torch.Tensor:
    """One video's tokens as the language model reads them, with newline tokens where the checkpoint has them.

    Args:
        tokens: ``[T, P, D]``; P is a square number if ``position`` is ``grid``.
        newline: ``[D]``.
        position: one of :data:`tam_plugin.budget.layout.NEWLINE_POSITIONS`: after each row of each frame, after each
            frame, once at the end, or not at all.

    Returns:
        ``[N, D]`` with N as :meth:`tam_plugin.budget.TokenLayout.count` gives it.
    """
    frames, per_frame, width = tokens.shape
    newline = newline.to(tokens)
    if position == "grid":
        side = math.isqrt(per_frame)
        rows = tokens.reshape(frames * side, side, width)
        return torch.cat([rows, newline.expand(len(rows), 1, width)], dim=1).flatten(0, 1)
    if position == "frame":
        return torch.cat([tokens, newline.expand(frames, 1, width)], dim=1).flatten(0, 1)
    flat = tokens.flatten(0, 1)
    return flat if position == "no_token" else torch.cat([flat, newline[None]])
