"""The name of a sample in the plans: a hash of what decides its budget, cheap enough to work out in a worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tam_plugin.errors import InputError

HUMAN = ("human", "user")


class SampleKey(NamedTuple):
    """128 bits of a sample's hash: 64 that it is found by, 64 more that tell two samples with one key apart."""

    key: int
    check: int


def sample_key(sample_id: Any, video: str, question: str) -> SampleKey:
    """The key of a row of instruction data.

    Ids repeat in mixtures and videos are asked about many times, so neither names a sample alone. The name of the
    data file takes no part: a row keeps its plan when files are joined, split or sampled.

    Args:
        sample_id: the row's ``id``, any JSON value; None where it has none.
        video: the row's ``video``, as it is written there.
        question: the first human turn, as it is written there.
    """
    digest = hashlib.blake2b(json.dumps([sample_id, video, question]).encode(), digest_size=16).digest()
    return SampleKey(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def is_video_row(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a video alone; a row that has an image too is the image's."""
    return "video" in row and "image" not in row


def first_question(row: Mapping[str, Any]) -> str:
    """The first human turn: the video is encoded once, so the first question decides for all.

    Raises:
        InputError: the row has no conversation, or no human turn in it.
    """
    turns: Any = row.get("conversations")
    return turns[first_human_turn(turns)]["value"]


def first_human_turn(turns: Any) -> int:
    """The place of the first human turn among a row's ``conversations``.

    Raises:
        InputError: they are none, or there is no human turn.
    """
    for place, turn in enumerate(turns if isinstance(turns, list) else ()):
        if isinstance(turn, dict) and turn.get("from") in HUMAN and isinstance(turn.get("value"), str):
            return place
    raise InputError("no human turn in 'conversations': expected one with 'from': 'human' and its text in 'value'")


def key_of_row(row: Mapping[str, Any]) -> SampleKey:
    """The key of a row about a video.

    Raises:
        InputError: its video is no path, or it has no human turn.
    """
    return sample_key(row.get("id"), video_of(row), first_question(row))


def video_of(row: Mapping[str, Any]) -> str:
    """The path of a row's video, as it is written there.

    Raises:
        InputError: it is no path.
    """
    video = row.get("video")
    if not isinstance(video, str) or not video.strip():
        raise InputError(f"'video' must be the path of one video, got {str(video)[:60]!r}")
    return video
