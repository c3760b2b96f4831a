"""preprocess_frames against Pillow's bicubic in float64, and against the host's own processor where it is at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tam_plugin.errors import InputError
from tam_plugin.video import preprocess_frames

from .clips import picture

ONE_LEVEL = 1 / 127.5
"""A grey level of 255 on the scale of [-1, 1]."""


def frames_of(kind: str, width: int, height: int, count: int = 5) -> np.ndarray:
    if kind == "noise":
        return np.random.default_rng(7).integers(0, 256, (count, height, width, 3), np.uint8)
    if kind == "black and white":  # the sharpest edges: overshoots are clipped after each pass
        return frames_of("noise", width, height, count) // 128 * 255
    return np.stack([picture(number, width, height) for number in range(count)])


def by_pillow(frames: np.ndarray, size: int, mean: tuple, std: tuple) -> np.ndarray:
    """Float64 ``[T, 3, size, size]``: Pillow's bicubic resize, then (x / 255 - mean) / std."""
    resized = [np.asarray(Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC)) for f in frames]
    return ((np.stack(resized).astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["noise", "black and white", "picture"])
@pytest.mark.parametrize(
    "width, height",
    [
        (640, 360),
        (288, 512),
        (60, 40),
        (384, 384),
        (97, 1),
        (384, 200),
        (1280, 720),
        (720, 1280),
        (700, 2000),
        (692, 692),
    ],
)
def test_equals_pillow_within_one_level(kind: str, width: int, height: int) -> None:
    frames = frames_of(kind, width, height, count=2)
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    found = preprocess_frames(frames)
    assert found.shape == (2, 3, 384, 384) and found.dtype == torch.float32 and found.is_contiguous()
    assert np.abs(found.numpy() - by_pillow(frames, 384, mean, std)).max() <= ONE_LEVEL + 1e-6


def test_channels_keep_their_own_mean_and_std() -> None:
    mean, std = (0.48, 0.45, 0.40), (0.26, 0.25, 0.28)
    frames = frames_of("picture", 100, 80)
    found = preprocess_frames(frames, size=56, mean=mean, std=std)
    assert np.abs(found.numpy() - by_pillow(frames, 56, mean, std)).max() <= 1 / 255 / min(std) + 1e-6


def test_frames_that_grow_are_pillows_own() -> None:
    frames = frames_of("black and white", 60, 40)
    expected = by_pillow(frames, 384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert np.abs(preprocess_frames(frames).numpy() - expected).max() < 1e-6


def test_the_encoders_own_size_is_only_normalised() -> None:
    frames = frames_of("noise", 56, 56)
    expected = (frames.astype(np.float64) / 127.5 - 1).transpose(0, 3, 1, 2)
    assert np.abs(preprocess_frames(frames, size=56).numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_rounded_float32(dtype: torch.dtype) -> None:
    frames = frames_of("picture", 100, 80)
    assert torch.equal(preprocess_frames(frames, size=56, dtype=dtype), preprocess_frames(frames, size=56).to(dtype))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    frames = frames_of("noise", 70, 50, count=11)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = preprocess_frames(frames, size=28)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, torch.cat([preprocess_frames(frame[None], size=28) for frame in frames]))


def test_any_layout_in_memory() -> None:
    frames = frames_of("picture", 100, 80)
    expected = preprocess_frames(frames, size=28)
    locked = frames.copy()
    locked.flags.writeable = False
    turned = np.ascontiguousarray(frames[:, ::-1])[:, ::-1]
    for same in (locked, turned, torch.from_numpy(frames), np.asfortranarray(frames)):
        assert torch.equal(preprocess_frames(same, size=28), expected)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_other_arrays_are_refused(frames: object) -> None:
    with pytest.raises(InputError, match=r"expected uint8 \[T, H, W, 3\]"):
        preprocess_frames(frames)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 3.5}, {"mean": (0.5,)}, {"std": (0.5, 0.5, 0.0)}])
def test_other_settings_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match=" = "):
        preprocess_frames(np.zeros((1, 8, 8, 3), np.uint8), **options)


_HOST = """
import sys, types, numpy as np
# the file of the processor alone: what the package's own __init__ imports does not load on every transformers
for name in ("llava", "llava.model", "llava.model.multimodal_encoder"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [sys.argv[3] + "/" + name.replace(".", "/")]
sys.modules["llava.utils"] = types.ModuleType("llava.utils")
sys.modules["llava.utils"].rank0_print = print
from llava.model.multimodal_encoder.siglip_encoder import SigLipImageProcessor
frames = list(np.load(sys.argv[1]))
np.save(sys.argv[2], SigLipImageProcessor().preprocess(frames, return_tensors="pt")["pixel_values"].numpy())
"""


@pytest.mark.slow
def test_equals_the_hosts_processor(tmp_path: Path) -> None:
    home = Path(os.environ.get("LLAVA_NEXT_HOME", "~/.cache/tam_plugin/LLaVA-NeXT")).expanduser()
    if not (home / "llava").is_dir():
        pytest.skip(f"no LLaVA-NeXT checkout at {home}; set LLAVA_NEXT_HOME")
    frames = frames_of("picture", 720, 800)
    np.save(tmp_path / "frames.npy", frames)
    run = subprocess.run(
        [sys.executable, "-c", _HOST, str(tmp_path / "frames.npy"), str(tmp_path / "expected.npy"), str(home)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found = preprocess_frames(frames).numpy()
    assert np.abs(found - np.load(tmp_path / "expected.npy")).max() <= ONE_LEVEL + 1e-6


@pytest.mark.parametrize("inference", [True, False])
def test_any_grad_mode_gives_the_same(inference: bool) -> None:
    frames = np.random.default_rng(5).integers(0, 256, (9, 40, 30, 3), np.uint8)
    with torch.inference_mode(inference):
        found = preprocess_frames(frames, size=16)
    assert found.is_inference() == inference
    assert torch.equal(found, preprocess_frames(frames, size=16))
