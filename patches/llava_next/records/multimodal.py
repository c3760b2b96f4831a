"""Records by which each video of a batch is pooled and projected by its own budget."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tam_plugin.errors import InputError
from tam_plugin.patches.llava_next.model.model_config import is_tam
from tam_plugin.patches.record import Patch

CLASS = "llava.model.llava_arch:LlavaMetaForCausalLM"


def _prepare(original: Callable) -> Callable:
    import torch

    signature = inspect.signature(original)

    def prepare(self, *args, **kwargs):
        from tam_plugin.patches.llava_next.data.modality import host_modalities
        from tam_plugin.patches.llava_next.model.multimodal import check_rows, entries_of, planned

        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        images = call.arguments["images"]
        if images is None:
            return original(self, *args, **kwargs)
        modalities = host_modalities(call.arguments["modalities"])
        plan = entries_of(self, images, modalities)
        if plan is None:
            return original(self, *args, **kwargs)
        call.arguments["modalities"] = modalities
        check_rows(call.arguments["input_ids"], call.arguments["attention_mask"], modalities, len(images))
        with planned(plan):
            return original(*call.args, **call.kwargs)

    # frames and strides change from sample to sample, and ZeRO-3 gathers the newline by hooks
    uncompiled = torch.compiler.disable(prepare)

    @functools.wraps(original)
    def prepare_inputs_labels_for_multimodal(self, *args, **kwargs):
        return (uncompiled if is_tam(self) else prepare)(self, *args, **kwargs)

    return prepare_inputs_labels_for_multimodal


def _encode_images(original: Callable) -> Callable:
    @functools.wraps(original)
    def encode_images(self, images):
        from tam_plugin.patches.llava_next.model.multimodal import (
            SampleTokens,
            current_entries,
            encode_batch,
            pool_batch,
        )

        plan = current_entries()
        if plan is None:
            return original(self, images)
        counts = [entry.num_frames for entry in plan]
        if is_tam(self):
            return SampleTokens(encode_batch(self, images, plan), counts)
        return SampleTokens(pool_batch(self, original(self, images), plan), counts)

    return encode_images


def _encode_multimodals(original: Callable) -> Callable:
    @functools.wraps(original)
    def encode_multimodals(self, videos_or_images, video_idx_in_batch, split_sizes=None):
        from tam_plugin.patches.llava_next.model.multimodal import current_entries, encode_batch

        plan = current_entries()
        if plan is None:
            return original(self, videos_or_images, video_idx_in_batch, split_sizes)
        if is_tam(self):
            return encode_batch(self, videos_or_images, plan)
        raise InputError(
            "this LLaVA-NeXT pools videos before its projector and at one stride: for videos with a budget take a "
            "TAM checkpoint, or a host from 2024-06-28 on"
        )

    return encode_multimodals


def _pool(original: Callable) -> Callable:
    @functools.wraps(original)
    def get_2dPool(self, image_feature, *args, **kwargs):
        from tam_plugin.patches.llava_next.model.multimodal import current_entries

        if current_entries() is not None:
            return image_feature
        return original(self, image_feature, *args, **kwargs)

    return get_2dPool


def _calls_encode_multimodals(module: ModuleType) -> bool:
    prepare: Any = inspect.unwrap(module.LlavaMetaForCausalLM.prepare_inputs_labels_for_multimodal)
    return "encode_multimodals" in prepare.__code__.co_names


RECORDS = (
    Patch(
        name="multimodal.prepare",
        target=f"{CLASS}.prepare_inputs_labels_for_multimodal",
        reason="the budgets of a batch are known while its images become tokens",
        wrap=_prepare,
        signatures=(
            (
                "self",
                "input_ids",
                "position_ids",
                "attention_mask",
                "past_key_values",
                "labels",
                "images",
                "modalities",
                "image_sizes",
            ),
        ),
    ),
    Patch(
        name="multimodal.encode_images",
        target=f"{CLASS}.encode_images",
        reason="each sample is projected by the projector of its stride",
        wrap=_encode_images,
        signatures=(("self", "images"),),
    ),
    Patch(
        name="multimodal.encode_multimodals",
        target=f"{CLASS}.encode_multimodals",
        reason="hosts before 2024-06 encode through it",
        wrap=_encode_multimodals,
        signatures=(("self", "videos_or_images", "video_idx_in_batch", "split_sizes"),),
        needed=_calls_encode_multimodals,
    ),
    Patch(
        name="multimodal.get_2dPool",
        target=f"{CLASS}.get_2dPool",
        reason="each video is pooled at its own stride, not at the host's fixed one",
        wrap=_pool,
        signatures=(("self", "image_feature", "stride"), ("self", "image_feature")),
    ),
)
