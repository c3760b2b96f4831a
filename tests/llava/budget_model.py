"""A TAM model on the host with a 7 × 7 grid, every weight its own, built in a tenth of a second."""

from __future__ import annotations

import importlib
from typing import Any

import torch

GRID = 7
IMAGE_SIZE = 98
WIDTH = 32
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": IMAGE_SIZE,
    "patch_size": 14,
}
IMAGE_TOKEN = -200


FAMILIES = {
    "qwen": ("llava_qwen", "LlavaQwen", "LlavaQwenConfig"),
    "llama": ("llava_llama", "LlavaLlama", "LlavaConfig"),
    "mixtral": ("llava_mixtral", "LlavaMixtral", "LlavaMixtralConfig"),
}
"""Module, class and configuration of each kind of language model in the host."""


def tam_model(newline: str = "grid", merge_type: str = "spatial_unpad", family: str = "qwen", **tam: Any):
    """``LlavaQwenForCausalLM`` (or another family's class) in float32; ``tam`` are fields of :class:`TamConfig`."""
    from tam_plugin import TamConfig

    name, model_class, config_class = FAMILIES[family]
    module = importlib.import_module(f"llava.model.language_model.{name}")
    config = getattr(module, config_class)(
        vocab_size=300,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8192,
        use_cache=False,
        mm_vision_tower="tam",
        mm_hidden_size=ENCODER["hidden_size"],
        mm_projector_type="mlp2x_gelu",
        mm_patch_merge_type=merge_type,
        mm_newline_position=newline,
        mm_spatial_pool_mode="bilinear",
        mm_spatial_pool_stride=2,
        image_aspect_ratio="square",
        tam=TamConfig.from_dict({**tam, "vision_encoder": ENCODER}).to_dict(),
    )
    torch.manual_seed(0)
    model = getattr(module, f"{model_class}ForCausalLM")(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            scale = 0.5 if "gate" in name else 0.15
            parameter.copy_(torch.randn(parameter.shape, generator=_generator(name)) * scale)
    return model.eval()


def _generator(name: str) -> torch.Generator:
    return torch.Generator().manual_seed(sum(map(ord, name)))


def pixels(num_frames: int, seed: int = 0) -> torch.Tensor:
    """``[T, 3, S, S]``."""
    shape = (num_frames, 3, IMAGE_SIZE, IMAGE_SIZE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def row(length: int, *, image: bool = True, seed: int = 0) -> torch.Tensor:
    """Token ids ``[length]`` of a prompt, with the image token third."""
    ids = torch.randint(10, 290, (length,), generator=torch.Generator().manual_seed(seed))
    if image:
        ids[2] = IMAGE_TOKEN
    return ids


def batch(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows padded on the right, with labels on everything but padding and images."""
    longest = max(len(r) for r in rows)
    ids = torch.stack([torch.cat([r, torch.zeros(longest - len(r), dtype=torch.long)]) for r in rows])
    mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
    labels = ids.masked_fill((mask == 0) | (ids == IMAGE_TOKEN), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def embeddings(model, inputs: dict[str, torch.Tensor], images, modalities) -> list[torch.Tensor]:
    """What the language model sees of each row, without padding."""
    _, _, mask, _, embeds, _ = model.prepare_inputs_labels_for_multimodal(
        inputs["input_ids"],
        None,
        inputs["attention_mask"],
        None,
        inputs["labels"],
        images,
        modalities,
        [(IMAGE_SIZE, IMAGE_SIZE)] * len(images),
    )
    if mask is None:
        mask = torch.ones(embeds.shape[:2])
    return [e[m.bool()] for e, m in zip(embeds, mask, strict=True)]
