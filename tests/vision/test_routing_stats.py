"""Statistics against numpy sums over the routers' own decisions."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tam_plugin import TaskType
from tam_plugin.errors import InputError
from tam_plugin.vision import RoutingStatistics, collect_routing, moe_layers

from .conftest import build_siglip, perturb, upcycled

FRAMES = [2, 1, 3]
KEYS = [("Action", "short"), ("OCR", "long"), ("Action", "short")]


def recorded(num_batches: int = 1):
    """A model's statistics, and every router's decisions as ``[layer][frame, token, K]`` arrays."""
    model = upcycled(build_siglip())
    perturb(model)
    decisions: list[list] = [[] for _ in moe_layers(model)]
    for layer, kept in zip(moe_layers(model), decisions, strict=True):
        layer.gate.register_forward_hook(lambda _m, _i, routing, kept=kept: kept.append(routing))
    statistics = RoutingStatistics()
    for batch in range(num_batches):
        torch.manual_seed(batch)
        with torch.no_grad(), collect_routing(model) as routing:
            model(torch.randn(sum(FRAMES), 3, 12, 12))
        statistics.update(routing, FRAMES, KEYS)
    frames = num_batches * sum(FRAMES)
    indices = [torch.cat([r.indices for r in kept]).view(frames, 9, 2).numpy() for kept in decisions]
    weights = [torch.cat([r.weights for r in kept]).view(frames, 9, 2).double().numpy() for kept in decisions]
    return statistics, indices, weights


@pytest.mark.parametrize("num_batches", [1, 2])
@pytest.mark.parametrize("key", [None, KEYS[0], KEYS[1]])
def test_load_and_mean_weight_equal_numpy(num_batches, key):
    statistics, indices, weights = recorded(num_batches)
    owner = [k for k, n in zip(KEYS, FRAMES, strict=True) for _ in range(n)] * num_batches
    rows = [i for i, k in enumerate(owner) if key in (None, k)]
    for layer in range(3):
        experts, shares = indices[layer][rows].ravel(), weights[layer][rows].ravel()
        counts = np.bincount(experts, minlength=4)
        sums = np.bincount(experts, weights=shares, minlength=4)
        np.testing.assert_allclose(statistics.load(key)[layer], counts / counts.sum(), atol=1e-12)
        np.testing.assert_allclose(statistics.mean_weight(key)[layer], sums / counts.clip(1), atol=1e-6)


def test_json_form():
    statistics, _, _ = recorded()
    statistics_by_key = json.loads(json.dumps(statistics.to_dict()))
    assert statistics_by_key.keys() == {"all", "Action/short", "OCR/long"}
    assert statistics_by_key["Action/short"]["assignments"] == [5 * 9 * 2] * 3
    assert all(sum(layer) == pytest.approx(1) for layer in statistics_by_key["OCR/long"]["load"])


def test_task_types_serve_as_keys():
    model = upcycled(build_siglip())
    statistics = RoutingStatistics()
    with torch.no_grad(), collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12))
    key = (next(iter(TaskType)).label, "short")
    statistics.update(routing, [1], [key])
    assert set(statistics.to_dict()) == {"all", "/".join(key)}


def test_nothing_recorded_and_bad_counts():
    statistics = RoutingStatistics()
    model = upcycled(build_siglip())
    with collect_routing(model) as routing:
        pass
    statistics.update(routing, [], [])
    assert statistics.to_dict() == {}
    with pytest.raises(InputError, match="no routing was recorded for None; recorded: nothing"):
        statistics.load()
    with torch.no_grad(), collect_routing(model) as routing:
        model(torch.randn(2, 3, 12, 12))
    with pytest.raises(InputError, match=r"frames_per_sample \[3\] for 2 recorded frames"):
        statistics.update(routing, [3], ["a"])
    with pytest.raises(InputError, match="2 keys for 1 samples"):
        statistics.update(routing, [2], ["a", "b"])
