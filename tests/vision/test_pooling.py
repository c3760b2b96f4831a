"""Pooling against a plain float64 computation of what it should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tam_plugin.errors import InputError
from tam_plugin.vision import pool_tokens


def bilinear(grid: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel-centre bilinear resampling of ``[G, G, D]``, without antialiasing."""
    side = grid.shape[0]
    centres = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, None)
    low = np.floor(centres).astype(int)
    high = np.minimum(low + 1, side - 1)
    part = (centres - low)[:, None, None]
    rows = grid[low] * (1 - part) + grid[high] * part
    part = (centres - low)[None, :, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def blocks(grid: np.ndarray, stride: int, reduce) -> np.ndarray:
    size = grid.shape[0] // stride
    cells = grid[: size * stride, : size * stride].reshape(size, stride, size, stride, -1)
    return reduce(cells, axis=(1, 3))


@pytest.mark.parametrize("side", [27, 16, 5])
@pytest.mark.parametrize("stride", [2, 3, 4, 5])
@pytest.mark.parametrize("mode", ["bilinear", "average", "max"])
def test_equals_plain_float64(side, stride, mode):
    torch.manual_seed(0)
    features = torch.randn(3, side * side, 6)
    found = pool_tokens(features, stride, mode)
    size = math.ceil(side / stride) if mode == "bilinear" else side // stride
    assert found.shape == (3, size * size, 6)
    for frame, expected in zip(found, features.double().numpy().reshape(3, side, side, 6), strict=True):
        if mode == "bilinear":
            plain = bilinear(expected, size)
        else:
            plain = blocks(expected, stride, np.mean if mode == "average" else np.max)
        np.testing.assert_allclose(frame.numpy().reshape(size, size, 6), plain, atol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "average", "max"])
def test_equals_the_hosts_layout_bit_for_bit(mode):
    """The host makes the grid contiguous before it pools; layout must not change the numbers."""
    torch.manual_seed(0)
    features = torch.randn(4, 729, 32)
    grid = features.view(4, 27, 27, 32).permute(0, 3, 1, 2).contiguous()
    pooled = {
        "bilinear": lambda: torch.nn.functional.interpolate(grid, size=(14, 14), mode="bilinear"),
        "average": lambda: torch.nn.functional.avg_pool2d(grid, 2),
        "max": lambda: torch.nn.functional.max_pool2d(grid, 2),
    }[mode]()
    torch.testing.assert_close(pool_tokens(features, 2, mode), pooled.flatten(2).transpose(1, 2), atol=1e-6, rtol=0)


def test_tokens_of_the_papers_strides():
    features = torch.zeros(1, 729, 8)
    assert [pool_tokens(features, s).shape[1] for s in (1, 2, 3, 4)] == [729, 196, 81, 49]
    assert [pool_tokens(features, s, "average").shape[1] for s in (1, 2, 3, 4)] == [729, 169, 81, 36]


def test_stride_one_returns_the_input_itself():
    features = torch.randn(2, 9, 4)
    assert pool_tokens(features, 1) is features


def test_gradients_flow():
    features = torch.randn(1, 9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pool_tokens(x, 2), features)


@pytest.mark.parametrize(
    "shape, stride, mode, message",
    [
        ((1, 728, 4), 2, "bilinear", "728 patches per frame do not form a square grid"),
        ((9, 4), 2, "bilinear", r"shape \(9, 4\): expected \[frames, patches, width\]"),
        ((1, 9, 4), 0, "bilinear", "pool stride 0: expected a whole number from 1"),
        ((1, 9, 4), 4, "average", "pool stride 4: expected a whole number from 1 to the grid's side 3"),
        ((1, 9, 4), 1.5, "bilinear", "pool stride 1.5"),
        ((1, 9, 4), 2, "nearest", "pool mode 'nearest': expected bilinear, average or max"),
    ],
)
def test_bad_input_is_named(shape, stride, mode, message):
    with pytest.raises(InputError, match=message):
        pool_tokens(torch.zeros(shape), stride, mode)
