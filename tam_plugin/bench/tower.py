"""``tam bench tower``: the dense SigLIP tower beside the mixture tower, grouped, expert by expert, and as ``auto``."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tam_plugin.bench.timing import compare, rows
from tam_plugin.config import TamConfig
from tam_plugin.errors import InputError, TamError

if TYPE_CHECKING:
    import torch
    from torch import nn

# Shapes of SiglipVisionConfig; so400m is google/siglip-so400m-patch14-384 itself.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 2, "num_attention_heads": 6},
    "so400m": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16},
}
DENSE = "dense (host)"
# Largest difference from the dense features that rounding explains, as a part of their largest value.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of ``tam bench tower``."""
    parser.add_argument("--preset", choices=PRESETS, default="small", help="size of the encoder (default: small)")
    parser.add_argument("--frames", type=int, default=2, help="frames per call, 729 tokens each (default: 2)")
    parser.add_argument("--experts", type=int, default=4, help="experts per layer (default: 4)")
    parser.add_argument("--top-k", type=int, default=2, help="experts per token (default: 2)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: cuda if available")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default: %(default)s)")
    parser.add_argument("--dtype", choices=_TOLERANCE, default=None, help="default: bfloat16 on cuda, else float32")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Check that the towers agree, then time forward and forward + backward of each, interleaved.

    A mixture with top-K does K times the dense MLP's arithmetic, so its ratio against the dense tower is below 1;
    what the grouped way saves shows against the expert-by-expert rows.

    Raises:
        InputError: no frame, no round, or ``cuda`` without a GPU.
        TamError: a tower does not compute what the dense one computes.
    """
    import torch

    for name in ("frames", "rounds"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: expected a whole number >= 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no CUDA GPU here; use --device cpu")
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = args.dtype or ("bfloat16" if device == "cuda" else "float32")

    torch.manual_seed(0)
    towers = _towers(args, torch.device(device), getattr(torch, dtype))
    pixels = torch.randn(args.frames, 3, 384, 384, device=device, dtype=getattr(torch, dtype))
    differences = _check_equal(towers, pixels, _TOLERANCE[dtype])
    sync = torch.cuda.synchronize if device == "cuda" else _nothing

    forward = {name: _forward(tower, pixels, sync) for name, tower in towers.items()}
    loop = "mixture, frame by frame, expert by expert"
    forward[loop] = _frame_by_frame(towers["mixture, expert by expert"], pixels, sync)
    training = {name: _forward_backward(tower, pixels, sync) for name, tower in towers.items()}
    result = []
    for label, ways in (("forward", forward), ("forward+backward", training)):
        timed = rows(compare(ways, args.rounds), DENSE)
        result += [{**row, "name": f"{label}: {row['name']}"} for row in timed]
    return {
        "preset": args.preset,
        "frames": args.frames,
        "tokens": args.frames * 729,
        "experts": args.experts,
        "top_k": args.top_k,
        "device": device,
        "dtype": dtype,
        "rounds": args.rounds,
        "max_difference_from_dense": differences,
        "rows": result,
    }


def _towers(args: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, nn.Module]:
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    from tam_plugin.vision import upcycle_vision_encoder

    config = SiglipVisionConfig(image_size=384, patch_size=14, **PRESETS[args.preset])
    config.vision_use_head = False
    dense: nn.Module = SiglipVisionModel(config)
    dense = dense.to(device, dtype).eval()
    towers: dict[str, nn.Module] = {DENSE: dense}
    # Without grouped GEMM on this device `grouped` says so in an error: a row by that name must be grouped.
    for name, backend in (
        ("mixture, grouped", "grouped"),
        ("mixture, expert by expert", "reference"),
        ("mixture, auto", "auto"),
    ):
        moe = {"num_experts": args.experts, "top_k": args.top_k, "backend": backend}
        towers[name] = copy.deepcopy(dense)
        torch.manual_seed(1)  # all mixtures get the same gates
        upcycle_vision_encoder(towers[name], TamConfig.from_dict({"moe": moe}))
    return towers


def _check_equal(towers: dict[str, nn.Module], pixels: torch.Tensor, tolerance: float) -> dict[str, float]:
    import torch

    with torch.no_grad():
        features = {name: tower(pixels).last_hidden_state.float() for name, tower in towers.items()}
    expected = features.pop(DENSE)
    scale = float(expected.abs().max())
    differences = {name: float((found - expected).abs().max()) for name, found in features.items()}
    for name, difference in differences.items():
        if not difference <= tolerance * scale:
            raise TamError(
                f"{name}: differs from the dense tower by {difference:.3g} (features up to {scale:.3g}); not timed"
            )
    return differences


def _forward(tower: nn.Module, pixels: torch.Tensor, sync: Callable[[], None]) -> Callable[[], object]:
    import torch

    def call() -> None:
        with torch.no_grad():
            tower(pixels)
        sync()

    return call


def _frame_by_frame(tower: nn.Module, pixels: torch.Tensor, sync: Callable[[], None]) -> Callable[[], object]:
    import torch

    def call() -> None:
        with torch.no_grad():
            for frame in pixels.split(1):
                tower(frame)
        sync()

    return call


def _forward_backward(tower: nn.Module, pixels: torch.Tensor, sync: Callable[[], None]) -> Callable[[], object]:
    def call() -> None:
        tower.zero_grad(set_to_none=True)
        tower(pixels).last_hidden_state.float().square().mean().backward()
        sync()

    return call


def _nothing() -> None:
    pass
