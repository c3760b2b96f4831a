"""``tam bench step``: one stage-3 training step, TAM beside the dense host it came from, at the same visual tokens.

Weights are random and built on the device: what a step costs depends on shapes alone. One row of one video and a short
conversation; the language model is frozen with LoRA on its linear layers; the encoder's MLPs (TAM: experts and gates)
and the projectors train in full; the rest of the encoder is frozen.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tam_plugin.bench.timing import compare, rows
from tam_plugin.budget import HOST_STRIDE
from tam_plugin.config import TamConfig
from tam_plugin.errors import InputError, TamError, require

if TYPE_CHECKING:
    import torch
    from torch import nn

DENSE, TAM = "dense (host)", "TAM"
PRESETS = {"7b": 32, "tiny": 4}
"""Sizes of the model, and the frames that each sees unless told."""
PUBLISHED = "llava-video-7b"
"""The preset of ``tam flops`` whose published sizes ``7b`` takes."""
LORA_RANK, LORA_ALPHA = 16, 32
LORA_TARGETS = r".*\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
LEARNING_RATE = 1e-5
QUESTION = "What happens in this video, and in which order? Answer in one sentence."
ANSWER = "A person opens the door, puts down a bag, and walks to the window."
_GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of ``tam bench step``."""
    parser.add_argument(
        "--preset", choices=PRESETS, help="7b: SigLIP-so400m and Qwen2-7B (default on cuda); tiny (default elsewhere)"
    )
    parser.add_argument("--frames", type=int, help="frames of the video (default: 32; 4 with tiny)")
    parser.add_argument("--stride", type=int, default=2, help="pooling stride (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if available")
    parser.add_argument(
        "--rounds", type=int, default=5, help="timed steps after one warm-up step (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Build the dense model, time its steps, free it, and do the same with TAM.

    Returns:
        Sizes, losses of the last step, trained parameters, ``peak_memory_gib`` of each way (None on a CPU, where it
        is not measured) and the rows; a row's ratio is the dense model's seconds over its own.

    Raises:
        InputError: no frame or round, a stride without a projector, ``cuda`` without a GPU, or ``7b`` without one.
        TamError: the GPU does not have enough memory, or a loss is not finite.
    """
    import torch

    device, preset, frames = _check(args)
    require("peft", needed_for="tam bench step", extra="train")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    fields, batch = model_fields(preset), {}
    seconds, losses, memory, trained = {}, {}, {}, {}
    for way in (DENSE, TAM):
        what = f"--preset {preset} --frames {frames} --stride {args.stride}, {way}"
        with _enough_memory(what, device):
            torch.manual_seed(0)
            model = build(way, fields, args.stride, torch.device(device), dtype)
            batch = training_batch(fields, frames, args.stride, torch.device(device), dtype)
            step = TrainingStep(model, inputs_of(way, batch))
            trained[way] = sum(parameter.numel() for parameter in step.trained)
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds.update(compare({way: step}, args.rounds))
            memory[way] = round(torch.cuda.max_memory_allocated() / _GIB, 2) if device == "cuda" else None
            losses[way] = step.loss
            if not math.isfinite(step.loss):
                raise TamError(f"{way}: the loss of the last step is {step.loss}; its time is not reported")
        del model, step  # the models never lie in memory together
    visual = int((batch["input_ids"] == fields["video_token_index"]).sum())
    return {
        **{"preset": preset, "device": device, "gpu": torch.cuda.get_device_name() if device == "cuda" else None},
        **{"dtype": str(dtype).removeprefix("torch."), "frames": frames, "stride": args.stride},
        "visual_tokens": visual,
        "text_tokens": batch["input_ids"].numel() - visual,
        "rounds": args.rounds,
        "trained_parameters": trained,
        "losses": losses,
        "peak_memory_gib": memory,
        "notes": _notes(preset, device, args.stride),
        "rows": rows(seconds, DENSE),
    }


def _check(args: argparse.Namespace) -> tuple[str, str, int]:
    """Device, preset and frames."""
    import torch

    strides = TamConfig().projector.strides
    for name in ("frames", "rounds"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: expected a whole number >= 1")
    if args.stride not in strides:
        raise InputError(f"--stride {args.stride}: expected one of {', '.join(map(str, strides))}")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA GPU here; use --device cpu --preset tiny")
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    preset = args.preset or ("7b" if device == "cuda" else "tiny")
    if preset == "7b" and device == "cpu":
        raise InputError("--preset 7b: expected a CUDA GPU, and this would run on the CPU; use --preset tiny")
    return device, preset, args.frames or PRESETS[preset]


def model_fields(preset: str) -> dict[str, Any]:
    """Fields of ``LlavaOnevisionConfig`` for a preset; token ids are those of the demo tokenizer."""
    from tam_plugin.patches.onevision.tiny import demo_config, demo_tokenizer

    config = demo_config(demo_tokenizer()).to_dict()
    config.pop("model_type")
    if preset == "7b":
        from tam_plugin.files import read_yaml
        from tam_plugin.flops.shapes import PRESET_FILE

        sizes = read_yaml(PRESET_FILE, what="FLOPs presets")[PUBLISHED]
        vision, language = config["vision_config"], config["text_config"]
        config["vision_config"] = {**vision, **sizes["vision"]}
        # What the host works out from the tiny sizes (the kinds of layers) is left behind.
        kept = {key: language[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config["text_config"] = {**kept, **sizes["language"]}
    return config


def build(way: str, fields: dict[str, Any], stride: int, device: torch.device, dtype: torch.dtype) -> Any:
    """A model in training mode with random weights, LoRA, gradient checkpointing and only its trained parts unfrozen.

    Args:
        way: :data:`DENSE` or :data:`TAM`, which is the dense model upgraded.
        fields: of :func:`model_fields`.
        stride: what the dense model pools by; TAM reads it from the batch.
        device: where the weights are made.
        dtype: of all weights, LoRA's too.
    """
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from tam_plugin.patches.onevision import upgrade_dense
    from tam_plugin.vision import pool_tokens

    with device, _default_dtype(dtype):
        model: Any = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(**fields))
    if way == TAM:
        model = upgrade_dense(model, TamConfig())
    elif stride != HOST_STRIDE:
        # The host can pool its videos by 2 only; the comparison is at equal tokens.
        model.model.apply_pooling = functools.partial(pool_tokens, stride=stride)
    _add_lora(model, dtype)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_trains(name))
    # Reentrant checkpointing would cut the gradient of layers whose input needs none.
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def _add_lora(model: nn.Module, dtype: torch.dtype) -> None:
    peft = require("peft", needed_for="tam bench step", extra="train")
    lora = peft.LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, target_modules=LORA_TARGETS)
    peft.inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:  # peft keeps them in float32; a bfloat16 run trains them in bfloat16
            parameter.data = parameter.data.to(dtype)


def _trains(name: str) -> bool:
    """Whether stage 3 trains a parameter: LoRA, the encoder's MLPs or mixtures, projectors."""
    in_tower_mlp = ".vision_tower." in name and ".mlp." in name
    return ".lora_" in name or in_tower_mlp or ".multi_modal_projector." in name


def training_batch(
    fields: dict[str, Any], frames: int, stride: int, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """One training row as TAM takes it (:func:`~tam_plugin.patches.onevision.build_inputs`), with random frames."""
    import torch

    from tam_plugin.patches.onevision import TamOnevisionConfig, VideoTurn, build_inputs
    from tam_plugin.patches.onevision.tiny import demo_tokenizer

    config = TamOnevisionConfig(**fields, tam=TamConfig().to_dict())
    side = config.vision_config.image_size
    pixels = torch.randn(frames, 3, side, side, generator=torch.Generator().manual_seed(0))
    turn = VideoTurn(question=QUESTION, frames=pixels, pool_stride=stride, answer=ANSWER)
    batch = {name: values.to(device) for name, values in build_inputs([turn], demo_tokenizer(), config).items()}
    batch["pixel_values_videos"] = batch["pixel_values_videos"].to(dtype)
    return batch


def inputs_of(way: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The batch as a model takes it: the host knows neither counts nor strides and wants ``[V, T, 3, S, S]``."""
    if way == TAM:
        return batch
    inputs = {name: values for name, values in batch.items() if not name.startswith("video_")}
    return {**inputs, "pixel_values_videos": batch["pixel_values_videos"][None]}


class TrainingStep:
    """Forward, backward and AdamW on one batch; a call ends when the device is done.

    Attributes:
        trained: parameters that the optimizer holds.
        loss: of the last call.
    """

    def __init__(self, model: Any, inputs: dict[str, torch.Tensor]) -> None:
        import torch

        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.loss = math.nan
        self._model, self._inputs = model, inputs
        fused = inputs["input_ids"].is_cuda
        self._optimizer = torch.optim.AdamW(self.trained, lr=LEARNING_RATE, fused=fused)

    def __call__(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        # No cache: the host would keep one beside a training step.
        loss = self._model(**self._inputs, use_cache=False).loss
        loss.backward()
        self._optimizer.step()
        self.loss = float(loss.detach())
        if loss.is_cuda:
            import torch

            torch.cuda.synchronize()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def _enough_memory(what: str, device: str) -> Iterator[None]:
    """Turn CUDA's out-of-memory error into one line that says how much there was."""
    import torch

    if device != "cuda":
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TamError(
            f"{what}: the GPU does not have enough memory: {total / _GIB:.1f} GiB, of which {free / _GIB:.1f} GiB were "
            "free at the start; use fewer frames, a larger stride, or a larger GPU"
        ) from error


def _notes(preset: str, device: str, stride: int) -> list[str]:
    notes = ["AdamW keeps its moments in the dtype of the weights, without float32 copies of them"]
    if device != "cuda":
        notes.append("no CUDA GPU is used: peak memory is not measured on a CPU")
    if preset == "tiny":
        notes.append("preset tiny: random toy shapes, whose ratio says nothing of a 7B; --preset 7b needs a CUDA GPU")
    if stride != HOST_STRIDE:
        notes.append(f"the host pools videos by {HOST_STRIDE}; here it was made to pool by {stride}, for equal tokens")
    return notes
