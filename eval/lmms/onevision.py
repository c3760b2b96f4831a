"""``tallva_onevision``: TAM on transformers' LLaVA-OneVision, for lmms-eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tam_plugin.budget import Policy
from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import TamConfig
from tam_plugin.eval.ablations import find
from tam_plugin.eval.lmms.generation import written
from tam_plugin.eval.lmms.model import TamModel
from tam_plugin.eval.lmms.scoring import losses
from tam_plugin.eval.lmms.settings import Settings
from tam_plugin.patches.hosts.model import Answered, Row
from tam_plugin.patches.onevision.inputs import IGNORE_INDEX, VideoTurn, build_inputs, count_prompt_tokens
from tam_plugin.patches.onevision.loading import load, pick_device
from tam_plugin.video import preprocess_frames


class TallvaOnevision(TamModel):
    """A TAM checkpoint of the OneVision host, or a dense ``llava-hf`` one, which is upgraded in memory."""

    def load(self, settings: Settings) -> OnevisionModel:
        """Load the checkpoint."""
        device = settings.device
        if device in ("auto", "cuda") and self.accelerator.num_processes > 1:
            device = str(self.accelerator.device)
        return OnevisionModel(settings, device)


class OnevisionModel:
    """The loaded model; see :class:`~tam_plugin.patches.hosts.model.HostModel`."""

    def __init__(self, settings: Settings, device: str) -> None:
        from loguru import logger

        dtype = None if settings.dtype == "auto" else getattr(torch, settings.dtype)
        self.loaded = load(settings.pretrained, device=str(pick_device(device)), dtype=dtype)
        if self.loaded.notice and settings.ablation is not None:  # a dense one becomes what the row is of
            row = find(settings.ablation).tam(TamConfig())
            self.loaded = load(settings.pretrained, tam_config=row, device=str(pick_device(device)), dtype=dtype)
        if self.loaded.notice:
            logger.warning(self.loaded.notice)
        self.model, self.tokenizer = self.loaded.model, self.loaded.tokenizer
        self.config = self.model.config
        self.device = self.model.device
        self.tower = self.model.model.vision_tower
        tam = self.config.tam_config
        self.layout = self.config.token_layout
        self.instruction = tam.instruction
        self.inductor = self.model.inductor if settings.inductor is None else None
        self.policy: Policy | None = stored_policy(tam.policy) if settings.policy is None else None
        self.weights: tuple[str | None, ...] = (settings.pretrained,)

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole prompt around a user's turn, at most, without the video's."""
        return count_prompt_tokens(text, self.tokenizer, self.config)

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row], options: Mapping[str, Any]) -> list[Answered]:
        """Answers to a batch, padded on the left."""
        inputs = self._inputs(rows)
        ids = self.model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ends = self._ends()
        return [
            Answered(text=text.strip(), output_tokens=written(row, ends), **counts)
            for text, row, counts in zip(texts, ids, self._counts(inputs), strict=True)
        ]

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> list[Answered]:
        """Losses of a batch's continuations, padded on the right."""
        inputs = self._inputs(rows)
        labels = inputs.pop("labels")
        hidden = self.model.model(**inputs).last_hidden_state
        scored = (labels != IGNORE_INDEX).sum(dim=1).tolist()
        return [
            Answered(
                loss=loss,
                is_greedy=greedy,
                output_tokens=count,
                prompt_tokens=counts["prompt_tokens"] - count,
                visual_tokens=counts["visual_tokens"],
            )
            for (loss, greedy), count, counts in zip(
                losses(hidden, labels, self.model.lm_head, ending=1), scored, self._counts(inputs), strict=True
            )
        ]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        size, mean, std = self.config.vision_config.image_size, self.loaded.image_mean, self.loaded.image_std
        turns = [
            VideoTurn(
                question=row.turn,
                frames=preprocess_frames(row.video.frames, size=size, mean=mean, std=std),
                pool_stride=row.budget.pool_stride,
                answer=row.continuation,
            )
            for row in rows
        ]
        inputs = build_inputs(turns, self.tokenizer, self.config)
        dtype = self.model.dtype
        return {k: v.to(self.device, dtype if v.is_floating_point() else None) for k, v in inputs.items()}

    def _counts(self, inputs: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
        prompts = inputs["attention_mask"].sum(dim=1).tolist()
        visual = (inputs["input_ids"] == self.config.video_token_id).sum(dim=1).tolist()
        return [{"prompt_tokens": p, "visual_tokens": v} for p, v in zip(prompts, visual, strict=True)]

    def _ends(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]
