"""Questions and frames → model inputs: prompt, video placeholders, one ragged batch.

Videos of one batch may differ in frames and stride, so frames travel concatenated, ``[ΣT, 3, S, S]``, with
``video_num_frames`` and ``video_pool_strides`` beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tam_plugin.budget import HOST_STRIDE
from tam_plugin.errors import ConfigError, InputError, check_unicode
from tam_plugin.patches import words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tam_plugin.patches.onevision.configuration import TamOnevisionConfig

IGNORE_INDEX = -100

TEMPLATE_TOKENS = 64
"""More than the chat format takes around the words."""


@dataclass(frozen=True, kw_only=True)
class VideoTurn:
    """One row of a batch: a question, with or without a video, with or without its answer.

    Attributes:
        question: the user's words, options included.
        frames: encoder input ``[T, 3, S, S]``, or None for a row of text alone.
        pool_stride: pooling stride of these frames.
        answer: the reply to train on; None in inference.
    """

    question: str
    frames: torch.Tensor | None = None
    pool_stride: int = HOST_STRIDE
    answer: str | None = None


def build_inputs(
    turns: Sequence[VideoTurn], tokenizer: PreTrainedTokenizerBase, config: TamOnevisionConfig
) -> dict[str, torch.Tensor]:
    """Batch ``turns`` for ``generate`` (left-padded) or, if all have answers, for training (right-padded).

    Returns:
        ``input_ids`` and ``attention_mask`` ``[B, L]``; ``labels`` ``[B, L]`` when training;
        ``pixel_values_videos`` ``[ΣT, 3, S, S]``, ``video_num_frames`` ``[V]`` and ``video_pool_strides`` ``[V]``
        if any turn has a video.

    Raises:
        InputError: no turns, answers in some turns only, frames of the wrong shape, or a stride the model
            has no projector for.
    """
    training = [turn.answer is not None for turn in turns]
    if not turns or any(training) != all(training):
        raise InputError(f"{len(turns)} turns, {sum(training)} with an answer: expected at least one, and all or none")
    rows = [_row(turn, tokenizer, config) for turn in turns]
    batch = _pad(rows, tokenizer.pad_token_id, left=not training[0])
    if not training[0]:
        del batch["labels"]
    videos = [turn for turn in turns if turn.frames is not None]
    if videos:
        batch["pixel_values_videos"] = torch.cat([turn.frames for turn in videos if turn.frames is not None])
        batch["video_num_frames"] = torch.tensor([len(turn.frames) for turn in videos if turn.frames is not None])
        batch["video_pool_strides"] = torch.tensor([turn.pool_stride for turn in videos])
    return batch


def _row(turn: VideoTurn, tokenizer: PreTrainedTokenizerBase, config: TamOnevisionConfig) -> dict[str, list[int]]:
    """Token ids and labels of one turn in the ChatML form of the OneVision checkpoints."""
    visual = [] if turn.frames is None else [config.video_token_id] * _placeholders(turn, config)
    ids = _encode(tokenizer, "<|im_start|>user ") + visual + _encode(tokenizer, "\n")
    ids += encode_words(turn.question, tokenizer, config) + _encode(tokenizer, "<|im_end|><|im_start|>assistant\n")
    vocabulary = config.text_config.vocab_size
    if not all(isinstance(token, int) and 0 <= token < vocabulary for token in ids):
        raise ConfigError(
            f"the tokenizer and config.json make tokens up to {max(map(int, ids))}, the model knows 0 to "
            f"{vocabulary - 1}: they do not belong together"
        )
    labels = [IGNORE_INDEX] * len(ids)
    if turn.answer is not None:
        answer = encode_words(turn.answer, tokenizer, config) + _encode(tokenizer, "<|im_end|>")
        ids, labels = ids + answer, labels + answer
    return {"input_ids": ids, "labels": labels}


def _placeholders(turn: VideoTurn, config: TamOnevisionConfig) -> int:
    frames, size, strides = turn.frames, config.vision_config.image_size, config.tam_config.projector.strides
    assert frames is not None
    if not torch.is_tensor(frames) or not frames.is_floating_point():
        raise InputError("frames must be a floating-point tensor, as preprocess_frames gives it")
    if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, size, size) or len(frames) == 0:
        raise InputError(f"frames of shape {list(frames.shape)}: expected [T, 3, {size}, {size}] with T >= 1")
    if turn.pool_stride not in strides:
        raise InputError(f"pool_stride = {turn.pool_stride!r}: this model has projectors for {list(strides)}")
    return config.token_layout.count(len(frames), turn.pool_stride)


def encode_words(text: str, tokenizer: PreTrainedTokenizerBase, config: TamOnevisionConfig) -> list[int]:
    """Token ids of words: a mark such as ``<video>`` or ``<|im_end|>`` in them never becomes a special token.

    Raises:
        InputError: it is no valid Unicode, or the tokenizer cannot write such a mark as text.
    """
    check_unicode(text)
    return words.encode_words(tokenizer, text, (config.image_token_id, config.video_token_id))


def count_prompt_tokens(text: str, tokenizer: PreTrainedTokenizerBase, config: TamOnevisionConfig) -> int:
    """Tokens of a prompt around a user's turn, at most, without the video's."""
    return len(encode_words(text, tokenizer, config)) + TEMPLATE_TOKENS


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _pad(rows: list[dict[str, list[int]]], pad_id: int | None, *, left: bool) -> dict[str, torch.Tensor]:
    pad_id = 0 if pad_id is None else pad_id  # masked out, so any id serves
    longest = max(len(row["input_ids"]) for row in rows)
    out: dict[str, Any] = {"input_ids": [], "attention_mask": [], "labels": []}
    for row in rows:
        gap = longest - len(row["input_ids"])
        padded = {
            "input_ids": ([pad_id] * gap, row["input_ids"]),
            "attention_mask": ([0] * gap, [1] * len(row["input_ids"])),
            "labels": ([IGNORE_INDEX] * gap, row["labels"]),
        }
        for name, (padding, values) in padded.items():
            out[name].append(padding + values if left else values + padding)
    return {name: torch.tensor(values) for name, values in out.items()}
