"""Ragged videos in one batch: frames and stride per video, videos per row, features to their placeholders."""

from __future__ import annotations

from typing import Any

import torch

from tam_plugin.budget import HOST_STRIDE
from tam_plugin.errors import InputError


def split_videos(
    pixel_values_videos: torch.Tensor, video_num_frames: Any = None, video_pool_strides: Any = None
) -> tuple[torch.Tensor, list[int], list[int]]:
    """Frames ``[ΣT, 3, S, S]`` with frame counts and strides as lists, from either accepted shape.

    Raises:
        InputError: counts that do not add up to the frames, or not one stride per video.
    """
    if pixel_values_videos.ndim == 5 and video_num_frames is None:
        counts = [pixel_values_videos.shape[1]] * pixel_values_videos.shape[0]
        frames = pixel_values_videos.flatten(0, 1)
    else:
        frames = pixel_values_videos
        counts = [len(frames)] if video_num_frames is None else [int(n) for n in video_num_frames]
    strides = [HOST_STRIDE] * len(counts) if video_pool_strides is None else [int(s) for s in video_pool_strides]
    if frames.ndim != 4 or sum(counts) != len(frames) or min(counts) < 1:
        raise InputError(
            f"pixel_values_videos of shape {list(pixel_values_videos.shape)} with video_num_frames = {counts}: "
            "expected [sum of frames, 3, S, S]"
        )
    if len(strides) != len(counts):
        raise InputError(f"{len(strides)} video_pool_strides for {len(counts)} videos: expected one per video")
    return frames, counts, strides


def assign_videos(placeholders: list[int], tokens: list[int]) -> list[list[int]]:
    """Which videos belong to which row, from the rows' placeholder counts and the videos' token counts.

    Raises:
        InputError: the videos do not fill the rows exactly.
    """
    rows: list[list[int]] = []
    video = 0
    for row, wanted in enumerate(placeholders):
        start, filled = video, 0
        while filled < wanted and video < len(tokens):
            filled += tokens[video]
            video += 1
        if filled != wanted:
            raise InputError(f"row {row} has {wanted} video placeholders; the videos have {tokens} tokens")
        rows.append(list(range(start, video)))
    if video != len(tokens):
        raise InputError(f"{len(tokens)} videos, but the placeholders take only {video}")
    return rows


def place_features(embeds: torch.Tensor, mask: torch.Tensor, features: torch.Tensor, kind: str) -> torch.Tensor:
    """Put ``features [n, H]`` where ``mask [B, L]`` is true in ``embeds [B, L, H]``.

    Raises:
        InputError: the number of placeholders is not the number of features.
    """
    if int(mask.sum()) != len(features):
        raise InputError(
            f"input_ids have {int(mask.sum())} {kind} placeholders, the {kind}s have {len(features)} tokens: "
            "build the inputs with the same frames and strides"
        )
    return embeds.masked_scatter(mask.unsqueeze(-1), features.to(embeds))
