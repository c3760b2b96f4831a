"""A LLaVA-NeXT of a few megabytes: checkpoints, a training set, and the host's command line."""

from __future__ import annotations

import importlib.machinery
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .tiny_models import (
    HIDDEN,
    SIGLIP,
    VOCABULARY,
    dense_config,
    hub_cache,
    llm_settings,
    write_dense,
    write_llm,
    write_siglip,
    write_tokenizer,
)

__all__ = [
    "HIDDEN",
    "SIGLIP",
    "VOCABULARY",
    "TrainingSet",
    "dense_config",
    "environment",
    "find_host",
    "hub_cache",
    "llm_settings",
    "run_train",
    "train_args",
    "write_dense",
    "write_llm",
    "write_siglip",
    "write_tokenizer",
    "write_training_set",
    "write_video",
]


def find_host() -> Path | None:
    """The folder that holds LLaVA-NeXT's ``llava`` package: importable, or under ``LLAVA_NEXT_HOME``."""
    spec = importlib.machinery.PathFinder.find_spec("llava")
    if spec is not None and spec.origin:
        return Path(spec.origin).parent.parent
    home = Path(os.environ.get("LLAVA_NEXT_HOME") or Path.home() / ".cache" / "tam_plugin" / "LLaVA-NeXT")
    return home if (home / "llava" / "__init__.py").is_file() else None


def environment(host: Path, hub: Path, **more: str) -> dict[str, str]:
    """Environment variables for a subprocess that runs the host offline, with ``hub`` as its hub cache."""
    import torch

    inherited = {k: v for k, v in os.environ.items() if not k.startswith("COV_CORE")}
    return {
        **inherited,
        "PYTHONPATH": f"{host}{os.pathsep}{Path(__file__).with_name('cpu_bfloat16')}",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(hub),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),  # so that sums are the same to the last bit
        **more,
    }


@dataclass(frozen=True)
class TrainingSet:
    """Where a training set lies: one JSON with every row, a YAML list of two JSONs, and the folder of the media."""

    json: Path
    yaml: Path
    media: Path


def write_video(path: Path, *, colour: tuple[int, int, int], frames: int = 24, rate: int = 12) -> Path:
    """An H.264 video of 64×48 pixels in which a square of ``colour`` moves to the right."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(frames):
            image = np.full((48, 64, 3), 32, np.uint8)
            left = n * 48 // frames
            image[16:32, left : left + 16] = colour
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def write_training_set(folder: Path) -> TrainingSet:
    """Three videos of two seconds, one of them asked about in two turns, an image and a row of text only."""
    from PIL import Image

    media = folder / "media"
    media.mkdir(parents=True)
    colours = {"red": (220, 20, 20), "green": (20, 220, 20), "blue": (20, 20, 220)}
    rows: list[dict[str, object]] = []
    for name, colour in colours.items():
        write_video(media / f"{name}.mp4", colour=colour)
        rows.append({"id": name, "video": f"{name}.mp4", "conversations": _turns("What colour is the square?", name)})
    rows[1]["conversations"] += _turns("Where does it go?", "Right", first=False)  # type: ignore[operator]
    Image.new("RGB", (64, 48), colours["red"]).save(media / "red.png")
    rows.append({"id": "picture", "image": "red.png", "conversations": _turns("What colour is this?", "red")})
    rows.append({"id": "text", "conversations": _turns("Name a colour.", "red", first=False)})
    parts = {"all.json": rows, "videos.json": rows[:3], "others.json": rows[3:]}
    for name, part in parts.items():
        (folder / name).write_text(json.dumps(part))
    listed = "".join(
        f"  - json_path: {folder / name}\n    sampling_strategy: all\n" for name in ("videos.json", "others.json")
    )
    (folder / "data.yaml").write_text(f"datasets:\n{listed}")
    return TrainingSet(folder / "all.json", folder / "data.yaml", media)


def _turns(question: str, answer: str, first: bool = True) -> list[dict[str, str]]:
    asked = f"<image>\n{question}" if first else question
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def train_args(model: Path, data: TrainingSet, output: Path, steps: int, **more: object) -> list[str]:
    """Arguments of ``train_mem.py`` as the host's video scripts give them, cut to a CPU; ``more`` replaces or adds."""
    flags: dict[str, object] = {
        "model_name_or_path": model,
        "version": "qwen_1_5",
        "data_path": data.yaml,
        "image_folder": data.media,
        "video_folder": data.media,
        "mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter,mm_language_model",
        "mm_vision_tower_lr": 5e-6,
        "vision_tower": SIGLIP,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "group_by_modality_length": True,
        "image_aspect_ratio": "anyres_max_9",
        "image_grid_pinpoints": "(1x1),...,(2x2)",
        "mm_patch_merge_type": "spatial_unpad",
        "bf16": True,
        "run_name": "tiny",
        "output_dir": output,
        "num_train_epochs": 1,
        "max_steps": steps,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "evaluation_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 500,
        "save_total_limit": 1,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "warmup_ratio": 0.03,
        "lr_scheduler_type": "cosine",
        "logging_steps": 1,
        "model_max_length": 4096,
        "gradient_checkpointing": True,
        "dataloader_num_workers": 0,
        "lazy_preprocess": True,
        "report_to": "none",
        "dataloader_drop_last": True,
        "frames_upbound": 4,
        "mm_newline_position": "grid",
        "add_time_instruction": True,
        "force_sample": True,
        "mm_spatial_pool_stride": 2,
        "attn_implementation": "sdpa",
        **more,
    }
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


def run_train(
    host: Path, hub: Path, arguments: list[str], *, python: str = sys.executable, timeout_s: float = 300, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the host's ``llava/train/train_mem.py`` as a shell would; output and errors come back as text."""
    return subprocess.run(
        [python, str(host / "llava" / "train" / "train_mem.py"), *arguments],
        env=environment(host, hub, **env),
        cwd=hub,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
