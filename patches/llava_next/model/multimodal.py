"""Visual tokens of a mixed batch: each video pooled at its own stride and projected by that stride's projector.

The host encodes a batch in one call, splits the result by sample and then pools videos. For a TAM model the plan of
the batch is set aside for the length of one ``prepare_inputs_labels_for_multimodal``; within it ``encode_images`` gives
final tokens, and pooling leaves them as they are. A plain model goes the same way where a video carries a budget: its
one projector serves every stride.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

from tam_plugin.budget import HOST_STRIDE
from tam_plugin.errors import InputError
from tam_plugin.patches.llava_next.data.modality import VideoModality
from tam_plugin.patches.llava_next.model.model_config import is_tam
from tam_plugin.vision.gradients import with_zero_gradients
from tam_plugin.vision.pooling import pool_tokens
from tam_plugin.vision.projector import ResolutionProjectors
from tam_plugin.vision.tokens import frames_to_tokens

IMAGE_TOKEN_INDEX = -200
"""The host's id for the place of an image or a video."""


class VisualEntry(NamedTuple):
    """One entry of the host's ``images``.

    Attributes:
        num_frames: frames (or crops of an image).
        stride: pooling stride of a video; None for an image.
        is_blank: the black picture that the host gives a row of text; none of its tokens are used.
    """

    num_frames: int
    stride: int | None
    is_blank: bool = False


_PLAN: ContextVar[Sequence[VisualEntry] | None] = ContextVar("tam_visual_plan", default=None)


def current_entries() -> Sequence[VisualEntry] | None:
    """The plan of the call that runs now, or None outside of one."""
    return _PLAN.get()


@contextmanager
def planned(entries: Sequence[VisualEntry] | None) -> Iterator[None]:
    """Set the plan of a batch aside for the calls inside."""
    token = _PLAN.set(entries)
    try:
        yield
    finally:
        _PLAN.reset(token)


def entries_of(model: Any, images: Any, modalities: Sequence[str]) -> list[VisualEntry] | None:
    """The plan of a batch, or None where the host does by itself all that was asked for.

    That is its plain batch of still images (a 4-D tensor), and for a model that is not TAM any batch without a budget.

    Args:
        model: the host's causal language model.
        images: list of ``[3, S, S]`` or ``[T, 3, S, S]``, or a tensor ``[B, T, 3, S, S]``.
        modalities: the host's; a "video" that carries no budget gets the host's own stride.

    Raises:
        InputError: a budget that cannot be followed: it belongs to no entry of ``images``, bought fewer frames than
            there are, or has a stride beyond the grid.
    """
    has_budget = any(isinstance(modality, VideoModality) for modality in modalities)
    if has_budget:
        _check_budgets(model, images, modalities)
    elif not is_tam(model):
        return None
    if not isinstance(images, list) and images.ndim != 5:
        return None
    entries = []
    for index, image in enumerate(images):
        modality = modalities[index] if index < len(modalities) else "image"
        frames = image.shape[0] if image.ndim == 4 else 1
        stride = None
        if isinstance(modality, VideoModality):
            stride = modality.pool_stride
        elif modality == "video":
            stride = host_stride(model)
        entries.append(VisualEntry(frames, stride, is_blank=modality == "text"))
    return entries


def _check_budgets(model: Any, images: Any, modalities: Sequence[str]) -> None:
    """Refuse budgets that the host would pass over in silence."""
    if not isinstance(images, list) and images.ndim != 5:
        raise InputError(
            f"images of shape {list(images.shape)} beside the budget of a video: the host takes these for still "
            "pictures; expected a list with [T, 3, S, S] for each video"
        )
    if len(images) != len(modalities):
        raise InputError(f"{len(modalities)} modalities for {len(images)} images: expected one each beside a budget")
    side = model.get_vision_tower().num_patches_per_side
    for index, (image, modality) in enumerate(zip(images, modalities, strict=True)):
        if not isinstance(modality, VideoModality):
            continue
        frames = image.shape[0] if image.ndim == 4 else 1
        if modality.num_frames is not None and frames > modality.num_frames:
            raise InputError(
                f"images[{index}] has {frames} frames, its budget {modality.num_frames}: sample the video by the budget"
            )
        if modality.pool_stride > side:
            raise InputError(
                f"pool stride {modality.pool_stride}: expected a whole number from 1 to the grid's side {side}"
            )


def check_rows(
    input_ids: torch.Tensor, attention_mask: torch.Tensor | None, modalities: Sequence[str], num_images: int
) -> None:
    """Refuse rows whose image tokens are not the videos that carry a budget.

    The host gives each image token the next entry of ``images``, and a row without any token one that nobody sees;
    for a token too many it takes a neighbour's.

    Args:
        input_ids: ``[B, L]``.
        attention_mask: ``[B, L]``, or None.
        modalities: one for each entry of ``images``.
        num_images: entries of ``images``.

    Raises:
        InputError: a video with a budget has no image token, or there are more tokens than images.
    """
    if input_ids.shape[1] == 1 or not any(isinstance(modality, VideoModality) for modality in modalities):
        return
    is_place = input_ids == IMAGE_TOKEN_INDEX
    if attention_mask is not None:
        is_place &= attention_mask.bool()
    at = 0
    for row, count in enumerate(is_place.sum(dim=1).tolist()):
        if count == 0 and at < num_images and isinstance(modalities[at], VideoModality):
            raise InputError(f"row {row} of input_ids has no image token: its video would not be seen")
        at += max(count, 1)
    if at > num_images:
        raise InputError(f"input_ids have places for {at} images, images has {num_images}: expected one token for each")


def host_stride(model: Any) -> int:
    """The stride that this host pools videos with by itself."""
    parameter = inspect.signature(type(model).get_2dPool).parameters.get("stride")
    if parameter is not None:
        return int(parameter.default)
    return getattr(model.config, "mm_spatial_pool_stride", None) or HOST_STRIDE


class SampleTokens:
    """Stands for the host's tensor of encoded frames, which it only splits by sample; samples differ in length.

    Args:
        tokens: of each sample; a token reducer may have left fewer frames than were encoded.
        num_frames: frames of each sample that the host gave to be encoded.
    """

    def __init__(self, tokens: list[torch.Tensor], num_frames: Sequence[int]) -> None:
        self.tokens = tokens
        self.num_frames = list(num_frames)

    def split(self, sizes: Sequence[int], dim: int = 0) -> list[torch.Tensor]:
        """The tokens of each sample (``torch.split`` calls this).

        Raises:
            InputError: the host splits otherwise than the batch was planned.
        """
        if list(sizes) != self.num_frames or dim != 0:
            raise InputError(f"the host splits {list(sizes)} frames, planned were {self.num_frames}")
        return self.tokens


def pool_batch(model: Any, tokens: torch.Tensor, entries: Sequence[VisualEntry]) -> list[torch.Tensor]:
    """Pool the tokens of a plain model, each video by its own stride, as the host pools at its one.

    Args:
        model: the host's causal language model.
        tokens: ``[sum of frames, G*G, D_llm]``, encoded and projected by the host.
        entries: the batch's plan.

    Returns:
        For each entry ``[T_i, tokens_i, D_llm]``.
    """
    mode = getattr(model.config, "mm_spatial_pool_mode", None) or "bilinear"
    samples = tokens.split([entry.num_frames for entry in entries])
    return [
        sample if entry.stride is None else pool_tokens(sample, entry.stride, mode)
        for sample, entry in zip(samples, entries, strict=True)
    ]


def encode_batch(model: Any, frames: torch.Tensor, entries: Sequence[VisualEntry]) -> list[torch.Tensor]:
    """Encode, pool and project a batch of a TAM model.

    A blank picture is not encoded beside real ones: it would count in the router losses.

    Args:
        model: the host's causal language model.
        frames: ``[sum of frames, 3, S, S]``.
        entries: the batch's plan.

    Returns:
        For each entry ``[T_i, tokens_i, D_llm]``; one meaningless token for a blank picture.

    Raises:
        InputError: a stride that the model has no projector for.
    """
    projectors: ResolutionProjectors = model.get_model().mm_projector
    used = [i for i, entry in enumerate(entries) if not entry.is_blank] or list(range(len(entries)))
    features = model.get_vision_tower()(_select(frames, entries, used))
    counts = [entries[i].num_frames for i in used]
    encoded = frames_to_tokens(features, counts, [entries[i].stride for i in used], projectors)
    # Text alone has no newline; reading it here, on every rank, lets ZeRO-3 gather it.
    newline = getattr(model.get_model(), "image_newline", None)
    if model.training and newline is not None:
        encoded[0] = with_zero_gradients(encoded[0], [newline])
    tokens = dict(zip(used, encoded, strict=True))
    blank = next(iter(tokens.values()))[:1, :1]
    return [tokens[i] if i in tokens else blank.expand(entry.num_frames, 1, -1) for i, entry in enumerate(entries)]


def _select(rows: torch.Tensor, entries: Sequence[VisualEntry], chosen: Sequence[int]) -> torch.Tensor:
    """Rows of the chosen entries, one after another; no copy if these are all."""
    if len(chosen) == len(entries):
        return rows
    split = rows.split([entry.num_frames for entry in entries])
    return torch.cat([split[i] for i in chosen])
