"""``tallva``: TAM and plain checkpoints on LLaVA-NeXT, loaded by the host's own loader, for lmms-eval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from tam_plugin.budget import Policy
from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import InstructionConfig
from tam_plugin.eval.lmms.generation import written
from tam_plugin.eval.lmms.llava_loading import TallvaSettings, import_host, load_checkpoint
from tam_plugin.eval.lmms.model import TamModel
from tam_plugin.eval.lmms.prompts import Prompts
from tam_plugin.eval.lmms.scoring import IGNORE_INDEX, losses
from tam_plugin.inductor.stored import stored_inductor
from tam_plugin.patches.hosts.model import Answered, Row
from tam_plugin.patches.onevision.loading import pick_device


class Tallva(TamModel):
    """A checkpoint of LLaVA-NeXT: TAM, or plain with ``policy=fixed:FRAMES:STRIDE`` or ``policy=FILE``."""

    settings_class = TallvaSettings

    def load(self, settings: TallvaSettings) -> LlavaNextModel:
        """Load the checkpoint."""
        device = settings.device
        if device in ("auto", "cuda") and self.accelerator.num_processes > 1:
            device = str(self.accelerator.device)
        return LlavaNextModel(settings, pick_device(device))


class LlavaNextModel:
    """The loaded model; see :class:`~tam_plugin.patches.hosts.model.HostModel`."""

    def __init__(self, settings: TallvaSettings, device: torch.device) -> None:
        import_host()
        from tam_plugin.patches.llava_next.model.model_config import is_tam, tam_config_of, token_layout_of

        self.tokenizer, self.model, self.image_processor, context = load_checkpoint(settings, device)
        self.device = self.model.device
        self.tower = self.model.get_vision_tower()
        config = self.model.config
        self.prompts = Prompts(self.tokenizer, settings.conv_template, config)
        self.weights: tuple[str | None, ...] = (settings.pretrained, settings.model_base)
        self.instruction = InstructionConfig(time=False)
        self.policy: Policy | None = None
        self.inductor: str | None = None
        if is_tam(self.model):
            tam = tam_config_of(self.model)
            self.instruction = tam.instruction
            if settings.inductor is None:
                self.inductor = stored_inductor(tam.inductor, settings.pretrained)
            if settings.policy is None:
                self.policy = stored_policy(tam.policy)
        longest = getattr(config, "tokenizer_model_max_length", None)  # the host cuts off what is beyond it
        self.layout = token_layout_of(self.model, context_tokens=min(context, longest or context))

    def count_tokens(self, text: str) -> int:
        """Tokens of the whole prompt around a turn, without the video's."""
        return len(self.prompts.ids(text)) - 1

    @torch.inference_mode()
    def generate(self, rows: Sequence[Row], options: Mapping[str, Any]) -> list[Answered]:
        """Answers to a batch, padded on the left."""
        prompts = [self.prompts.ids(row.turn) for row in rows]
        inputs, mask = self._padded(prompts)
        pad = self.tokenizer.pad_token_id
        with self._padding_side("left"):
            out = self.model.generate(
                inputs,
                attention_mask=mask,
                **self._visual(rows),
                **options,
                **self.prompts.stopping(self.model.generation_config.eos_token_id),
                pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
            )
        ids = out.tolist()
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        ends = [*self.prompts.end_ids, self.tokenizer.eos_token_id]
        return [
            Answered(text=text.strip(), output_tokens=written(answer, ends), **_counts(row, prompt))
            for text, answer, row, prompt in zip(texts, ids, rows, prompts, strict=True)
        ]

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> list[Answered]:
        """Losses of a batch's continuations, padded on the right."""
        prompts = [self.prompts.ids(row.turn) for row in rows]
        whole = [self.prompts.ids(row.turn, row.continuation) for row in rows]
        inputs, mask = self._padded(whole)
        labels = torch.full_like(inputs, IGNORE_INDEX)
        for line, prompt, full in zip(labels, prompts, whole, strict=True):
            line[len(prompt) : len(full)] = torch.tensor(full[len(prompt) :])
        with self._padding_side("right"):
            _, positions, mask, _, embeds, labels = self.model.prepare_inputs_labels_for_multimodal(
                # One row goes as the baseline's does; attention with and without a mask rounds differently.
                inputs,
                None,
                mask if len(rows) > 1 else None,
                None,
                labels,
                **self._visual(rows),
            )
        hidden = self.model.get_model()(inputs_embeds=embeds, attention_mask=mask, position_ids=positions)[0]
        scored = losses(hidden, labels, self.model.lm_head, ending=self.prompts.ending_tokens)
        return [
            Answered(loss=loss, is_greedy=greedy, output_tokens=len(full) - len(prompt), **_counts(row, prompt))
            for (loss, greedy), row, prompt, full in zip(scored, rows, prompts, whole, strict=True)
        ]

    def _visual(self, rows: Sequence[Row]) -> dict[str, Any]:
        from tam_plugin.patches.llava_next import video

        images = [
            self.image_processor.preprocess(row.video.frames, return_tensors="pt")["pixel_values"].to(
                self.device, self.model.dtype
            )
            for row in rows
        ]
        sizes = [(row.video.info.width, row.video.info.height) for row in rows]
        return {"images": images, "modalities": [video(row.budget) for row in rows], "image_sizes": sizes}

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and mask ``[B, L]``; the host takes the padding out again and pads what its videos made longer."""
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], device=self.device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.device)
        return ids, mask

    @contextmanager
    def _padding_side(self, side: str) -> Iterator[None]:
        before = getattr(self.model.config, "tokenizer_padding_side", "right")
        self.model.config.tokenizer_padding_side = side
        try:
            yield
        finally:
            self.model.config.tokenizer_padding_side = before


def _counts(row: Row, prompt: Sequence[int]) -> dict[str, Any]:
    """The image token gives way to the video's tokens."""
    visual = row.budget.visual_tokens
    return {"prompt_tokens": len(prompt) - 1 + visual, "visual_tokens": visual}
