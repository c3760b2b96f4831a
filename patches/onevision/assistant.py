"""The whole way on the OneVision host: question and video file in, decision and answer out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import tam_plugin
from tam_plugin.budget import Policy, VisualBudget
from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import TamConfig
from tam_plugin.deciding import Decider, compose_question, instruction_lines
from tam_plugin.errors import InputError
from tam_plugin.patches.hosts.model import Answer
from tam_plugin.patches.onevision.inputs import VideoTurn, build_inputs, count_prompt_tokens
from tam_plugin.patches.onevision.loading import Loaded, load

if TYPE_CHECKING:
    from tam_plugin.video import SampledVideo

DEMO_FOLDER = Path(tam_plugin.__file__).with_name("assets") / "taskworld"
"""The demonstration model that ships with the package."""

DEMO_NOTICE = (
    "no --model was given, and the shipped demonstration model knows only the drawn clips of TaskWorld; this video "
    "is not one of them, so there is no answer; pass --model with a LLaVA-OneVision or TAM checkpoint"
)


class VideoAssistant:
    """A loaded model that answers questions about sampled videos, as ``tam_plugin.patches.hosts.model.Assistant``."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    @classmethod
    def from_pretrained(cls, name_or_path: str | None = None, **kwargs) -> VideoAssistant:
        """Load a checkpoint (see :func:`load`); None loads the shipped demonstration model."""
        return cls(load(str(DEMO_FOLDER) if name_or_path is None else name_or_path, **kwargs))

    @property
    def notice(self) -> str | None:
        """What a user must know about the weights."""
        return self.loaded.notice

    @property
    def config(self):
        """The model's configuration, :class:`TamOnevisionConfig`."""
        return self.loaded.model.config

    @property
    def tam_config(self) -> TamConfig:
        """The configuration of the TAM model."""
        return self.config.tam_config

    @property
    def inductor(self) -> str | None:
        """Folder or name of the checkpoint's Inductor; None for the embedded one.

        Raises:
            ConfigError: the checkpoint names one outside of its folder.
        """
        return self.loaded.model.inductor

    @property
    def vision_tower(self) -> torch.nn.Module:
        """The encoder, for :func:`tam_plugin.vision.collect_routing` to listen to."""
        return self.loaded.model.model.vision_tower

    def decider(self, policy: Policy | None = None, inductor: str | None = None) -> Decider:
        """What decides frames and stride of questions to this model.

        Args:
            policy: None takes the checkpoint's.
            inductor: folder or name of an Inductor; None takes the checkpoint's.

        Raises:
            ConfigError: policy or Inductor cannot be used with this model.
        """
        tam, tokenizer, config = self.config.tam_config, self.loaded.tokenizer, self.config
        return Decider(
            stored_policy(tam.policy) if policy is None else policy,
            layout=config.token_layout,
            instruction=tam.instruction,
            inductor=self.inductor if inductor is None else inductor,
            count_tokens=lambda text: count_prompt_tokens(text, tokenizer, config),
        )

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
            InputError: the budget's stride has no projector in this model, or prompt and answer exceed its context; the
                model's experts go by task type (``router_mode`` ``by_task``) and the budget names none.
        """
        from tam_plugin.video import preprocess_frames
        from tam_plugin.vision import route_by_task

        loaded, config = self.loaded, self.config
        frames = preprocess_frames(
            video.frames, size=config.vision_config.image_size, mean=loaded.image_mean, std=loaded.image_std
        )
        lines = instruction_lines(budget, video, config.tam_config.instruction)
        question = compose_question(query, lines, options)
        turn = VideoTurn(question=question, frames=frames, pool_stride=budget.pool_stride)
        inputs = build_inputs([turn], loaded.tokenizer, config)
        device, dtype = loaded.model.device, loaded.model.dtype
        inputs = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in inputs.items()}
        prompt_tokens = inputs["input_ids"].shape[1]
        limit = config.token_layout.context_tokens
        if limit is not None and prompt_tokens + max_new_tokens > limit:
            raise InputError(
                f"a prompt of {prompt_tokens} tokens and an answer of {max_new_tokens} do not fit the {limit} of this "
                "model: shorten the question, or ask for fewer frames or a shorter answer"
            )
        with route_by_task(loaded.model, [budget.decided_task], [len(frames)]):
            new = loaded.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)[0, prompt_tokens:]
        visual_tokens = int((inputs["input_ids"] == config.video_token_id).sum())
        text = str(loaded.tokenizer.decode(new, skip_special_tokens=True)).strip()
        prompt = _prompt_text(inputs["input_ids"][0].tolist(), loaded.tokenizer, config.video_token_id)
        return Answer(text, prompt_tokens, visual_tokens, prompt)


def _prompt_text(ids: list[int], tokenizer, video_token_id: int) -> str:
    """A prompt in words, each run of visual tokens as its count."""
    parts = []
    for visual, run in itertools.groupby(ids, key=lambda token: token == video_token_id):
        tokens = list(run)
        words = f"[{len(tokens)} visual tokens]"
        parts.append(words if visual else tokenizer.decode(tokens, clean_up_tokenization_spaces=False))
    return "".join(parts)
