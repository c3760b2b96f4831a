"""Projectors by resolution, and the way from features to tokens."""

from __future__ import annotations

import copy
import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from tam_plugin.config import MoeConfig, ProjectorConfig
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.vision import ResolutionProjectors, collect_routing, frames_to_tokens, pool_tokens, with_zero_gradients

from .conftest import perturb

WIDTH, LLM_WIDTH, SIDE = 8, 16, 9


def dense_projector() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, LLM_WIDTH), nn.GELU(), nn.Linear(LLM_WIDTH, LLM_WIDTH))


def projectors(gate: str = "resolution", distinct: bool = True, **config) -> ResolutionProjectors:
    module = ResolutionProjectors(dense_projector(), ProjectorConfig(gate=gate, **config))
    if distinct:
        perturb(module, 0.3)
    return module


def features(num_frames: int) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(num_frames, SIDE * SIDE, WIDTH)


@pytest.mark.parametrize("gate", ["resolution", "soft", "random", "swapped", "single"])
def test_right_after_copying_every_gate_equals_the_dense_projector(gate):
    x = features(4)
    module = projectors(gate, distinct=False)
    torch.testing.assert_close(module(x, strides=[1, 2, 3, 4]), dense_projector()(x), atol=1e-5, rtol=0)
    torch.testing.assert_close(module(x), dense_projector()(x), atol=1e-5, rtol=0)


def test_state_dict_names_the_strides():
    keys = projectors().state_dict().keys()
    assert keys == {f"stride_{s}.{i}.{kind}" for s in (1, 2, 3, 4) for i in (0, 2) for kind in ("weight", "bias")}
    assert {key.split(".")[0] for key in projectors("single").state_dict()} == {"shared"}


@pytest.mark.parametrize("gate, expected", [("resolution", [1, 2, 3, 4]), ("swapped", [4, 2, 3, 1])])
def test_each_frame_takes_the_projector_of_its_stride(gate, expected):
    module = projectors(gate)
    x = features(6)
    strides = [3, 1, 4, 3, 2, 1]
    found = module(x, strides=strides)
    for frame, stride in enumerate(strides):
        child = module.get_submodule(f"stride_{expected[stride - 1]}")
        torch.testing.assert_close(found[frame], child(x[frame]), atol=1e-6, rtol=0)


def test_images_take_the_image_stride_and_one_number_serves_any_shape():
    module = projectors(image_stride=2)
    x = features(3)
    torch.testing.assert_close(module(x), module.stride_2(x))
    torch.testing.assert_close(module(x[0], strides=3), module.stride_3(x[0]))


def test_random_gate_takes_every_projector_and_repeats_with_the_seed():
    module = projectors("random")
    torch.manual_seed(7)
    drawn = [module.select(1) for _ in range(400)]
    torch.manual_seed(7)
    assert [module.select(1) for _ in range(400)] == drawn
    for stride in (1, 2, 3, 4):
        assert 60 < drawn.count(f"stride_{stride}") < 140


@pytest.mark.parametrize("gate", ["resolution", "swapped", "random", "single"])
@pytest.mark.parametrize("strides", [[2, 2], [1, 4], [1, 2, 3, 4]])
def test_every_projector_has_a_gradient_and_the_unselected_a_zero(gate, strides):
    module = projectors(gate).train()
    x = features(len(strides))
    torch.manual_seed(1)
    names = {module.select(s) for s in dict.fromkeys(strides)}
    torch.manual_seed(1)
    module(x, strides=strides).sum().backward()
    for name, child in module.named_children():
        sums = [p.grad.abs().sum().item() for p in child.parameters()]
        assert all(s > 0 for s in sums) if name in names else sums == [0] * 4, name


def _ddp_rank(rank: int, store: str, results) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    module = DistributedDataParallel(projectors().train())
    for strides in ([1, 2], [4, 4]) if rank else ([3, 3], [1, 1]):
        module(features(2), strides=strides).sum().backward()
    results[rank] = [p.grad.tolist() for p in module.parameters()]
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_that_use_different_projectors_stay_in_step_under_ddp(tmp_path):
    """DDP, which refuses unused parameters here, averages the ranks' gradients over both steps."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        results = manager.dict()
        spawn(_ddp_rank, args=(str(tmp_path / "store"), results), nprocs=2)
        first, second = results[0], results[1]
    alone = projectors().train()
    for strides in ([1, 2], [4, 4], [3, 3], [1, 1]):
        (alone(features(2), strides=strides).sum() / 2).backward()
    assert first == second
    for mine, parameter in zip(first, alone.parameters(), strict=True):
        torch.testing.assert_close(torch.tensor(mine), parameter.grad, atol=1e-4, rtol=1e-4)


def test_nan_in_an_unselected_projector_stays_there():
    module = projectors().train()
    nn.init.constant_(module.stride_4[0].weight, float("nan"))
    out = module(features(2), strides=1)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert module.stride_4[0].weight.grad.abs().sum() == 0


def test_zero_gradients_skip_frozen_parameters_and_evaluation():
    frozen, live = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(3))
    x = torch.ones(2, requires_grad=True)
    with_zero_gradients(x * 2, [frozen, live]).sum().backward()
    assert frozen.grad is None
    assert live.grad.tolist() == [0, 0, 0] and x.grad.tolist() == [2, 2]
    with torch.no_grad():
        assert with_zero_gradients(x, [live]) is x
    module = projectors().eval()
    module(features(1), strides=1).sum().backward()
    assert module.stride_2[0].weight.grad is None


def test_soft_gate_mixes_two_layer_projectors_and_reports_losses():
    config = ProjectorConfig(gate="soft", num_experts=8, top_k=2)
    module = ResolutionProjectors(dense_projector(), config, MoeConfig(backend="reference")).train()
    assert module.soft.experts.fc1.weight.shape == (8, LLM_WIDTH, WIDTH)
    assert module.soft.experts.backend_in_use == "reference"
    with collect_routing(module) as routing:
        out = module(features(3), strides=[1, 2, 1])
    (out.sum() + routing.aux_loss(MoeConfig())).backward()
    assert routing.balance_loss.item() > 0
    assert module.soft.gate.weight.grad.abs().sum() > 0


def test_soft_gate_takes_an_onevision_projector():
    class Projector(nn.Module):  # the shape of transformers' LlavaOnevisionMultiModalProjector
        def __init__(self) -> None:
            super().__init__()
            self.linear_1, self.act = nn.Linear(WIDTH, LLM_WIDTH), nn.GELU()
            self.linear_2 = nn.Linear(LLM_WIDTH, LLM_WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear_2(self.act(self.linear_1(x)))

    dense = Projector()
    module = ResolutionProjectors(dense, ProjectorConfig(gate="soft"))
    torch.testing.assert_close(module(features(2), strides=2), dense(features(2)), atol=1e-5, rtol=0)
    with pytest.raises(ConfigError, match="the projector holds Linear; expected a linear layer"):
        ResolutionProjectors(nn.Linear(2, 2), ProjectorConfig(gate="soft"))


@settings(max_examples=40, deadline=None)
@given(
    videos=st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 3, 4])), min_size=1, max_size=5),
    order=st.sampled_from(["after_projector", "before_projector"]),
    gate=st.sampled_from(["resolution", "swapped", "single"]),
)
def test_tokens_of_a_batch_equal_each_video_alone(videos, order, gate):
    module = projectors(gate, pool_order=order)
    counts, strides = zip(*videos, strict=True)
    x = features(sum(counts))
    found = frames_to_tokens(x, counts, strides, module)
    for tokens, frames, stride in zip(found, x.split(counts), strides, strict=True):
        child = module.get_submodule(module.select(stride))
        if order == "after_projector":
            expected = pool_tokens(child(frames), stride)
        else:
            expected = child(pool_tokens(frames, stride))
        side = -(-SIDE // stride)
        assert tokens.shape == (len(frames), side * side, LLM_WIDTH)
        torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


def test_one_projector_call_for_each_distinct_stride():
    module = projectors()
    calls: list[str] = []
    for name, child in module.named_children():
        child.register_forward_hook(lambda *_, name=name: calls.append(name))
    frames_to_tokens(features(9), [1, 2, 3, 2, 1], [2, 1, 2, 1, 2], module)
    assert sorted(calls) == ["stride_1", "stride_2"]


def test_gradients_reach_features_through_tokens():
    module = projectors().train()
    x = features(5).requires_grad_()
    tokens = frames_to_tokens(x, [2, 3], [4, 1], module)
    sum(t.square().sum() for t in tokens).backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert module.stride_2[0].weight.grad.abs().sum() == 0


def test_empty_batch_and_bad_counts():
    module = projectors()
    assert frames_to_tokens(features(0), [], [], module) == []
    assert module(features(0), strides=[]).shape == (0, SIDE * SIDE, LLM_WIDTH)
    with pytest.raises(InputError, match="2 strides for 1 videos"):
        frames_to_tokens(features(2), [2], [1, 2], module)
    with pytest.raises(InputError, match=r"frames_per_video \[3\] for features of 2 frames"):
        frames_to_tokens(features(2), [3], [1], module)
    with pytest.raises(InputError, match="pool stride 7: this model has projectors for 1, 2, 3, 4"):
        module(features(2), strides=[1, 7])
    with pytest.raises(InputError, match="1 strides for 2 frames"):
        module(features(2), strides=[1])


def test_the_dense_projector_is_not_shared():
    dense = dense_projector()
    module = ResolutionProjectors(dense, ProjectorConfig())
    before = copy.deepcopy(module.state_dict())
    perturb(dense)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
