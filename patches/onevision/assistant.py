"""The whole way on the OneVision host: question and video file in, decision and answer out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tam_plugin.config import TamConfig
from tam_plugin.patches.onevision.inputs import VideoTurn, build_inputs, compose_question
from tam_plugin.patches.onevision.loading import SIGLIP_MEAN, SIGLIP_STD, Loaded, load

if TYPE_CHECKING:
    from tam_plugin.budget import VisualBudget
    from tam_plugin.video import SampledVideo

DEMO_NOTICE = (
    "no --model was given: this is a demonstration model with untrained random weights, so its answer means nothing; "
    "pass --model with a LLaVA-OneVision or TAM checkpoint"
)


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Attributes:
        text: the answer.
        prompt_tokens: tokens of the whole prompt, visual ones included.
        visual_tokens: tokens of the video.
    """

    text: str
    prompt_tokens: int
    visual_tokens: int


class VideoAssistant:
    """A loaded model that answers questions about sampled videos."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    @classmethod
    def from_pretrained(cls, name_or_path: str | None = None, **kwargs) -> VideoAssistant:
        """Load a checkpoint (see :func:`load`); None makes the untrained demonstration model and says so."""
        return cls(_demo() if name_or_path is None else load(name_or_path, **kwargs))

    @property
    def notice(self) -> str | None:
        """What a user must know about the weights."""
        return self.loaded.notice

    @property
    def config(self):
        """The model's configuration, :class:`TamOnevisionConfig`."""
        return self.loaded.model.config

    @torch.inference_mode()
    def answer(
        self,
        video: SampledVideo,
        query: str,
        budget: VisualBudget,
        *,
        options: Sequence[str] | None = None,
        max_new_tokens: int = 128,
    ) -> Answer:
        """Greedy answer to ``query`` about the frames of ``video``.

        Raises:
            InputError: the budget's stride has no projector in this model.
        """
        from tam_plugin.video import preprocess_frames

        loaded, config = self.loaded, self.config
        instruction = config.tam_config.instruction
        frames = preprocess_frames(
            video.frames, size=config.vision_config.image_size, mean=loaded.image_mean, std=loaded.image_std
        )
        question = compose_question(
            query,
            budget,
            options=options,
            duration_s=video.info.duration_s,
            timestamps_s=[float(t) for t in video.timestamps_s],
            time=instruction.time,
            task=instruction.task,
        )
        turn = VideoTurn(question=question, frames=frames, pool_stride=budget.pool_stride)
        inputs = build_inputs([turn], loaded.tokenizer, config)
        device, dtype = loaded.model.device, loaded.model.dtype
        inputs = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        prompt_tokens = inputs["input_ids"].shape[1]
        new = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)[0, prompt_tokens:]
        visual_tokens = int((inputs["input_ids"] == config.video_token_id).sum())
        return Answer(loaded.tokenizer.decode(new, skip_special_tokens=True).strip(), prompt_tokens, visual_tokens)


def _demo() -> Loaded:
    from tam_plugin.patches.onevision.demo import demo_dense_model
    from tam_plugin.patches.onevision.upgrade import upgrade_dense

    dense, tokenizer = demo_dense_model()
    return Loaded(upgrade_dense(dense, TamConfig()), tokenizer, SIGLIP_MEAN, SIGLIP_STD, DEMO_NOTICE)
