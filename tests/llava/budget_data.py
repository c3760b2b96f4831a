"""A training set whose samples differ in question and video, read by the host's own dataset."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from tests.llava import tiny
from tests.video.clips import make_clip

COUNT = "How many red cups are on the table?"
SUMMARY = "Summarize the main events of the video from beginning to end."
DURATION_S = 40


def write_clip(path: Path, *, duration_s: int = DURATION_S, irregular: bool = False) -> Path:
    """3 frames a second, 64 × 48 pixels; irregular: every second frame is late by 0.2 s."""
    times = [20 * n + (12 if irregular and n % 2 else 0) for n in range(3 * duration_s)]
    options: dict[str, Any] = {"size": (64, 48), "fps": 3, "times": times, "time_base": Fraction(1, 60)}
    return make_clip(path, len(times), **options)


def turns(*texts: str) -> list[dict[str, str]]:
    """Human and model in turn, the human first."""
    return [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]


def sample(video: str, question: str, answer: str = "Three.", **more: Any) -> dict[str, Any]:
    """A sample as the host's JSON files have it."""
    return {"video": video, "conversations": turns(f"<image>\n{question}", answer), **more}


def host_dataset(folder: Path, model: Any, samples: list[dict[str, Any]], **data_args: Any):
    """The host's ``LazySupervisedDataset`` over ``samples`` whose files lie in ``folder``."""
    from llava.train.train import DataArguments, LazySupervisedDataset
    from transformers import AutoTokenizer

    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    listed = folder / "samples.json"
    listed.write_text(json.dumps(samples))
    if not (folder / "tokenizer").exists():
        tiny.write_tokenizer(folder / "tokenizer")
    tam_args = {name: data_args.pop(name) for name in list(data_args) if name.startswith("tam_")}
    max_length = data_args.pop("model_max_length", 16384)
    arguments = DataArguments(
        data_path=str(listed), image_folder=str(folder), video_folder=str(folder), is_multimodal=True, **data_args
    )
    arguments.image_processor = model.get_vision_tower().image_processor
    arguments.mm_use_im_start_end = False
    arguments.tam_args = TamArguments(**tam_args)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", model_max_length=max_length)
    return LazySupervisedDataset(data_path=str(listed), tokenizer=tokenizer, data_args=arguments)


def text_of(dataset: Any, item: dict[str, Any]) -> str:
    """The item's tokens as text."""
    return dataset.tokenizer.decode([i for i in item["input_ids"].tolist() if i >= 0])


def tam(folder: Path, samples: list[dict[str, Any]], model: Any = None, **data_args: Any):
    """The dataset that a TAM model's Trainer makes of :func:`host_dataset`."""
    from tam_plugin.patches.llava_next.model.training import tam_dataset
    from tests.llava.budget_model import tam_model

    model = model or tam_model()
    lookup = data_args.pop("plan_lookup", None)
    return tam_dataset(host_dataset(folder, model, samples, **data_args), model, plan_lookup=lookup)
