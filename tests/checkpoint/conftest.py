"""Dense LlavaOnevision checkpoints in the layouts of both generations of transformers, whole or in shards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tam_plugin.cli.main import main
from tam_plugin.patches.onevision.tiny import demo_dense_model

IMAGE_SIZE = 70
TO_4 = (
    ("model.vision_tower.", "vision_tower."),
    ("model.language_model.", "language_model.model."),
    ("lm_head", "language_model.lm_head"),
    ("model.multi_modal_projector", "multi_modal_projector"),
    ("model.image_newline", "image_newline"),
    ("vision_tower.encoder", "vision_tower.vision_model.encoder"),
    ("vision_tower.embeddings", "vision_tower.vision_model.embeddings"),
    ("vision_tower.post_layernorm", "vision_tower.vision_model.post_layernorm"),
)
"""From the names of transformers 5, in this order, to those of transformers 4."""


def in_layout(name: str, generation: int) -> str:
    """A dense tensor's name as published checkpoints of a generation have it, whoever saved it."""
    pairs = TO_4 if generation == 4 else [(new, old) for old, new in reversed(TO_4)]
    for old, new in pairs:
        if name.startswith(old):
            name = new + name[len(old) :]
    return name


def write_sharded(folder: Path, tensors: dict[str, torch.Tensor], shards: int, suffix: str = "safetensors") -> None:
    """Tensors over so many files in the order of their names, with an index; one file has none."""
    names = sorted(tensors)
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    places = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}" if shards > 1 else f"{stem}.{suffix}"
        part = {name: tensors[name] for name in names[number::shards]} if shards > 1 else tensors
        if suffix == "bin":
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    if shards > 1:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder's safetensors files."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def make_big(folder: Path) -> Path:
    """A dense checkpoint of some 80 MB over 24 files whose encoder has layers worth stacking."""
    model, tokenizer = demo_dense_model(
        image_size=70, patch_size=14, hidden_size=256, intermediate_size=1024, num_hidden_layers=6
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = all_tensors(folder)
    (folder / "model.safetensors").unlink()
    # Beside the model, ballast that takes the part of a large language model; a conversion takes it along.
    generator = torch.Generator().manual_seed(0)
    tensors.update({f"ballast.{n}": torch.randn(1 << 19, generator=generator) for n in range(28)})
    names, places = sorted(tensors), {}
    for number in range(24):
        file = f"model-{number + 1:05d}-of-00024.safetensors"
        part = names[number * len(names) // 24 : (number + 1) * len(names) // 24]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        places.update(dict.fromkeys(part, file))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 50e6 < size < 150e6
    return folder


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def upcycle(*argv: object) -> int:
    """``tam upcycle`` in this process."""
    return main(["upcycle", *map(str, argv)])


@pytest.fixture(scope="session")
def dense_model():
    """The host's own dense model, and its tokenizer."""
    return demo_dense_model(seed=1, image_size=IMAGE_SIZE, patch_size=14)


@pytest.fixture
def write_dense(dense_model, tmp_path):
    """``write_dense(name, generation=5, shards=3, suffix=…, dtype=…)``: a dense checkpoint folder."""

    def write(name="dense", generation=4, shards=3, suffix="safetensors", dtype=torch.float32) -> Path:
        folder = tmp_path / name
        model, tokenizer = dense_model
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        tensors = {in_layout(n, generation): t.to(dtype) for n, t in load_file(folder / "model.safetensors").items()}
        (folder / "model.safetensors").unlink()
        write_sharded(folder, tensors, shards, suffix)
        (folder / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}')
        (folder / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**values, "dtype": str(dtype).removeprefix("torch.")}))
        return folder

    return write
