"""What ``tam plan-data`` is asked to plan."""

from __future__ import annotations

from dataclasses import dataclass

from tam_plugin.budget import Policy, TokenLayout
from tam_plugin.plans.journal import Shard

BATCH_SIZE = 16
"""Questions per forward pass: what passes through the layers then stays in a core's cache."""
IMAGE_FPS = 2.0
"""Frames per second of a video that is a folder of images."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to plan, and for which model.

    Attributes:
        data: a YAML list, a file, or a brace pattern.
        out: folder for the plans.
        policy: the budget policy, in no model's layout yet.
        layout: the model's token layout; its ``context_tokens`` are what training keeps of a sequence.
        inductor: name or path, None for the embedded one.
        video_folder: what the videos' paths are relative to; None opens no video.
        image_fps: frames per second of a folder of images.
        workers: processes that open videos.
        batch_size: questions per forward pass.
        shard: the share of the work to do; None does all of it, or joins the shards that are there.
        join: refuse to do anything but join shards.
    """

    data: str
    out: str
    policy: Policy
    layout: TokenLayout
    inductor: str | None = None
    video_folder: str | None = None
    image_fps: float = IMAGE_FPS
    workers: int = 1
    batch_size: int = BATCH_SIZE
    shard: Shard | None = None
    join: bool = False
