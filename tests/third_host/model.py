"""The host's model and its assistant: SigLIP, two linear layers and Qwen2, all tiny; text is bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from tam_plugin.budget import Policy, VisualBudget
from tam_plugin.budget.stored import stored_policy
from tam_plugin.config import TamConfig
from tam_plugin.deciding import Decider
from tam_plugin.patches.hosts.model import Answer
from tam_plugin.video import SampledVideo, preprocess_frames
from tam_plugin.vision import ResolutionProjectors, pool_tokens, upcycle_vision_encoder

from .host import Glance

HALF = (0.5, 0.5, 0.5)
CONFIG: dict[str, Any] = {
    "model_type": "glance",
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 70,
        "patch_size": 14,
        "vision_use_head": False,
    },
    "text_config": {
        "model_type": "qwen2",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 256,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
    },
}


class GlanceModel(nn.Module):
    """Dense, or with a mixture encoder and a projector per stride if its configuration has a ``tam`` section."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        wide, hidden = config["vision_config"]["hidden_size"], config["text_config"]["hidden_size"]
        self.eye = SiglipVisionModel(SiglipVisionConfig(**config["vision_config"]))
        self.bridge: nn.Module = nn.Sequential(nn.Linear(wide, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.newline = nn.Parameter(torch.randn(hidden))
        fields = {name: value for name, value in config["text_config"].items() if name != "model_type"}
        self.words = Qwen2ForCausalLM(Qwen2Config(**fields, bos_token_id=0, eos_token_id=0, pad_token_id=0))
        if config.get("tam") is not None:
            tam = TamConfig.from_dict(config["tam"])
            upcycle_vision_encoder(self.eye, tam)
            self.bridge = ResolutionProjectors(self.bridge, tam.projector, tam.moe)

    def prompt(self, frames: torch.Tensor, stride: int, query: str) -> torch.Tensor:
        """Embeddings ``[1, L, H]`` of the frames ``[T, 3, S, S]`` and of the question's bytes."""
        seen = self.eye(frames).last_hidden_state
        tam = isinstance(self.bridge, ResolutionProjectors)
        tokens = self.bridge(seen, strides=stride) if tam else self.bridge(seen)
        visual = torch.cat([pool_tokens(tokens, stride).flatten(0, 1), self.newline[None]])
        text = self.words.get_input_embeddings()(torch.tensor([*query.encode()]))
        return torch.cat([visual, text])[None]


class GlanceAssistant:
    """A loaded model as ``tam ask`` asks it; a dense one decides as a TAM model of the defaults would."""

    notice = None

    def __init__(self, folder: str, *, device: str = "auto") -> None:
        assert device in ("auto", "cpu")
        values = json.loads((Path(folder) / "config.json").read_text())
        self.model = GlanceModel(values).eval()
        self.model.load_state_dict({n: t for f in Path(folder).glob("*.safetensors") for n, t in load_file(f).items()})
        self.tam_config = TamConfig.from_dict(values.get("tam") or {})
        self.layout = Glance().token_layout(values, folder)
        self.side = values["vision_config"]["image_size"]
        self.vision_tower = self.model.eye

    def decider(self, policy: Policy | None = None, inductor: str | None = None) -> Decider:
        return Decider(policy or stored_policy(self.tam_config.policy), layout=self.layout, inductor=inductor)

    def prompt(self, video: SampledVideo, query: str, budget: VisualBudget) -> torch.Tensor:
        """Embeddings ``[1, L, H]`` of the frames and of the question's bytes."""
        frames = preprocess_frames(video.frames, size=self.side, mean=HALF, std=HALF)
        return self.model.prompt(frames, budget.pool_stride, query)

    @torch.inference_mode()
    def logits(self, video: SampledVideo, query: str, budget: VisualBudget) -> torch.Tensor:
        """Logits ``[1, L, 256]`` of the prompt."""
        return self.model.words(inputs_embeds=self.prompt(video, query, budget)).logits

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
        prompt = self.prompt(video, query, budget)
        new = self.model.words.generate(inputs_embeds=prompt, max_new_tokens=max_new_tokens, do_sample=False)[0]
        text, visual = bytes(new.tolist()).decode("latin-1"), prompt.shape[1] - len(query.encode())
        return Answer(text, prompt.shape[1], visual, f"[{visual} visual tokens]{query}")


def write_checkpoint(folder: Path) -> Path:
    """A dense checkpoint with seeded random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GlanceModel(CONFIG)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
