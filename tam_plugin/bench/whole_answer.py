"""One answer to one question about one video, and where its time goes."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from tam_plugin.bench.step import model_fields
from tam_plugin.budget import VisualBudget
from tam_plugin.config import TamConfig
from tam_plugin.deciding import Sampling, take
from tam_plugin.errors import ConfigError
from tam_plugin.eval.flops import Subject, from_path
from tam_plugin.inductor import Inductor
from tam_plugin.patches.hosts import host_named, load_assistant
from tam_plugin.patches.hosts.onevision import Onevision
from tam_plugin.patches.onevision import VideoAssistant, upgrade_dense
from tam_plugin.patches.onevision.loading import SIGLIP_MEAN, SIGLIP_STD, Loaded
from tam_plugin.patches.onevision.tiny import demo_tokenizer
from tam_plugin.video import open_video, probe_video

DENSE, TAM = "dense", "TAM"
PARTS = ("frames", "tower", "prefill", "decoding", "rest")


class WholeAnswer:
    """A call answers once: the file is probed and sampled, the frames encoded, the answer generated in full.

    Args:
        assistant: the model.
        name: of the row.
        budget: frames and stride.
        tasks: labels of the task types that have this budget; none for the baseline, which asks no Inductor.
        path: the video.
        query: the question.
        new_tokens: length of the answer; it is not ended before.

    Attributes:
        prompt_tokens: of the last call, visual ones included.
    """

    def __init__(
        self,
        assistant: VideoAssistant,
        name: str,
        budget: VisualBudget,
        tasks: tuple[str, ...],
        *,
        path: Path,
        query: str,
        new_tokens: int,
    ) -> None:
        self.assistant, self.name, self.budget, self.tasks = assistant, name, budget, tasks
        self.info = probe_video(path)
        self.prompt_tokens = 0
        self._path, self._query, self._new_tokens = path, query, new_tokens
        self._inductor = Inductor.from_pretrained(assistant.inductor) if tasks else None
        self._seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        self._cpu_seconds: list[float] = []

    def __call__(self) -> None:
        model = self.assistant.loaded.model
        model.generation_config.min_new_tokens = self._new_tokens
        parts = dict.fromkeys(PARTS, 0.0)
        start, cpu_start = time.perf_counter(), time.process_time()
        if self._inductor is not None:
            self._inductor.classify(self._query, self.info.duration_s)
        with open_video(self._path) as opened:
            assert opened.info  # what the decision needs
            video = take(opened, self.budget.num_frames, Sampling(), query=self._query)
        parts["frames"] = time.perf_counter() - start
        clocks = [_Clock(model.model.vision_tower), _Clock(model.model.language_model)]
        answer = self.assistant.answer(video, self._query, self.budget, max_new_tokens=self._new_tokens)
        tower, language = (clock.stop() for clock in clocks)
        parts["tower"], parts["prefill"], parts["decoding"] = sum(tower), language[0], sum(language[1:])
        parts["rest"] = time.perf_counter() - start - sum(parts.values())
        self._cpu_seconds.append(time.process_time() - cpu_start)
        self.prompt_tokens = answer.prompt_tokens
        for part, seconds in parts.items():
            self._seconds[part].append(seconds)

    def medians(self, calls: int) -> dict[str, float]:
        """Median seconds of each part over the last calls; ``rest`` is preprocessing, pooling and projecting."""
        return {part: statistics.median(values[-calls:]) for part, values in self._seconds.items()}

    def cpu_seconds(self, calls: int) -> float:
        """Median seconds that this process's threads computed: what other work on the machine disturbs least."""
        return statistics.median(self._cpu_seconds[-calls:])

    @property
    def weight_bytes(self) -> int:
        """What the model's weights hold."""
        return sum(p.numel() * p.element_size() for p in self.assistant.loaded.model.parameters())


class _Clock:
    """Seconds of each call of a module, on the device too."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._started = 0.0
        self._seconds: list[float] = []
        self._hooks = [module.register_forward_pre_hook(self._start), module.register_forward_hook(self._end)]

    def _start(self, *_: Any) -> None:
        self._started = _now()

    def _end(self, *_: Any) -> None:
        self._seconds.append(_now() - self._started)

    def stop(self) -> list[float]:
        for hook in self._hooks:
            hook.remove()
        return self._seconds


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def make_models(path: str | None, preset: str, device: str) -> tuple[dict[str, VideoAssistant], Subject]:
    """The dense model and TAM, and their sizes; a TAM checkpoint has no dense model beside it.

    Args:
        path: a checkpoint; None makes random weights.
        preset: their size.
        device: ``cpu`` or ``cuda``.

    Raises:
        TamError: the checkpoint cannot be read.
    """
    dense = TamConfig.from_dict({"moe": {"enabled": False}})
    if path is None:
        fields = model_fields(preset)
        models = {DENSE: _random(fields, dense, device), TAM: _random(fields, TamConfig(), device)}
    else:
        models = {TAM: _assistant(path, device=device)}
        if models[TAM].notice:  # a dense checkpoint, upgraded in memory
            models = {DENSE: _assistant(path, device=device, tam_config=dense), **models}
    with tempfile.TemporaryDirectory() as folder:
        models[TAM].config.save_pretrained(folder)
        return models, from_path(folder)


def _assistant(path: str, **options: Any) -> VideoAssistant:
    """A checkpoint on its host.

    Raises:
        ConfigError: its parts cannot be timed.
    """
    assistant = load_assistant(path, **options)
    if not isinstance(assistant, VideoAssistant):
        expected = host_named(Onevision.name).checkpoints
        raise ConfigError(f"--model {path!r}: the parts of this model cannot be timed: expected {expected}")
    return assistant


def _random(fields: dict[str, Any], tam: TamConfig, device: str) -> VideoAssistant:
    """Seeded random weights: bfloat16 on CUDA, float32 elsewhere."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            dense: Any = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(**fields))
    finally:
        torch.set_default_dtype(before)
    model = upgrade_dense(dense, tam).eval().to(device)
    return VideoAssistant(Loaded(model, demo_tokenizer(), SIGLIP_MEAN, SIGLIP_STD, None))
