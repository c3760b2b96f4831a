"""Tiny models with seeded weights for the rows, and questions to ask them."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tam_plugin.budget import VisualBudget
from tam_plugin.config import TamConfig
from tam_plugin.flops import EncoderShape, LanguageShape, ModelShape, ProjectorShape
from tam_plugin.taxonomy import TaskDistribution
from tam_plugin.video import SampledVideo

IMAGE_SIZE, PATCH_SIZE = 70, 14
SPREAD = 0.3
"""Standard deviation of what sets experts, gates and projectors apart, as training would."""
QUESTIONS = (
    "What word is written on the sign?",
    "What happens after the square stops?",
    "Why does the square move?",
)


@dataclass(frozen=True)
class Case:
    """A question about a video, and what the Inductor says of it."""

    question: str
    path: str
    distribution: TaskDistribution


def cases(path: str, questions: Sequence[str] = QUESTIONS) -> list[Case]:
    """Questions about one video.

    Raises:
        InputError: the video cannot be read.
    """
    from tam_plugin.inductor import Inductor
    from tam_plugin.video import probe_video

    duration_s, inductor = probe_video(path).duration_s, Inductor.from_pretrained()
    return [Case(question, path, inductor.classify(question, duration_s)) for question in questions]


class TinyModels:
    """Models of the rows: parts that two rows both have are the same in both.

    Args:
        seed: of the weights, and of what rows draw (``draws``).
    """

    def __init__(self, seed: int = 0) -> None:
        from tam_plugin.patches.onevision.tiny import demo_dense_model

        self.seed = self.draws = seed
        self._videos: dict[tuple[str, int], tuple[torch.Tensor, SampledVideo]] = {}
        self._dense, self.tokenizer = demo_dense_model(seed, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)

    def build(self, tam: TamConfig) -> Any:
        """The model of a configuration."""
        from tam_plugin.patches.onevision import upgrade_dense

        with torch.random.fork_rng(devices=[]):  # gates are drawn here, and anew below
            model = upgrade_dense(copy.deepcopy(self._dense), tam)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".gate.weight" in name:
                    parameter.zero_()
                if ".mlp.gate" in name or ".mlp.experts" in name or "projector.soft" in name:
                    for number, part in enumerate(parameter):
                        self._set_apart(part, f"{name}/{number}")
                elif "projector.stride_" in name:
                    self._set_apart(parameter, name)
        return model.eval()

    def frames(self, path: str, budget: VisualBudget) -> tuple[torch.Tensor, SampledVideo]:
        """Encoder input ``[T, 3, S, S]`` and the video that it is of; decoded once for all rows."""
        from tam_plugin.patches.onevision.loading import SIGLIP_MEAN, SIGLIP_STD
        from tam_plugin.video import preprocess_frames, sample_frames

        key = (path, budget.num_frames)
        if key not in self._videos:
            video = sample_frames(path, budget, size=IMAGE_SIZE)
            pixels = preprocess_frames(video.frames, size=IMAGE_SIZE, mean=SIGLIP_MEAN, std=SIGLIP_STD)
            self._videos[key] = pixels, video
        return self._videos[key]

    def _set_apart(self, tensor: torch.Tensor, name: str) -> None:
        digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=SPREAD)


def shape_of(config: Any) -> ModelShape:
    """Sizes of a model of the OneVision host."""
    tam, vision, language = config.tam_config, config.vision_config, config.text_config
    wide, hidden = vision.hidden_size, language.hidden_size
    return ModelShape(
        encoder=EncoderShape.of(vision.to_dict(), tam, num_layers=vision.num_hidden_layers, where="tiny model"),
        projector=ProjectorShape.of(((wide, hidden), (hidden, hidden)), tam.projector),
        language=LanguageShape.of(language.to_dict(), "tiny model"),
        pool_mode=tam.projector.pool_mode,
    )
