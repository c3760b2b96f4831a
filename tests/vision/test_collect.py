"""Router losses and gradients under every way of checkpointing, accumulation, autocast and compilation."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from tam_plugin import TamConfig
from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError
from tam_plugin.vision import collect_routing, encoder_layers, moe_layers, use_non_reentrant_checkpointing

from .conftest import build_siglip, gradients, perturb, upcycled

MOE = MoeConfig(balance_loss_weight=0.5, z_loss_weight=0.25)
CHECKPOINTS = {"none": None, "reentrant": {"use_reentrant": True}, "non-reentrant": {"use_reentrant": False}}


def model_in_training(frozen_embedding: bool = False, **moe):
    model = upcycled(build_siglip(), **moe).train()
    perturb(model, 0.05)
    for name, parameter in model.named_parameters():
        if "embedding" in name:
            parameter.requires_grad_(not frozen_embedding)
    return model


def step(model, pixels, scale: float = 1.0):
    """One forward and backward with the losses of Eq. 4; returns the loss and what the collector saw."""
    with collect_routing(model) as routing:
        features = model(pixels).last_hidden_state
    loss = features.float().square().mean() + routing.aux_loss(MOE)
    (loss * scale).backward()
    return loss.detach(), routing


@pytest.mark.parametrize("moe", [{}, {"router_mode": "random_k", "router_noise_std": 0.3}], ids=["top_k", "random"])
@pytest.mark.parametrize("frozen_embedding", [False, True])
@pytest.mark.parametrize("mode", ["reentrant", "non-reentrant"])
def test_checkpointing_changes_neither_losses_nor_gradients(mode, frozen_embedding, moe):
    pixels = torch.randn(2, 3, 12, 12)
    results = {}
    for name in ("none", mode):
        model = model_in_training(frozen_embedding, **moe)
        if CHECKPOINTS[name]:
            model.gradient_checkpointing_enable(CHECKPOINTS[name])
        torch.manual_seed(5)
        loss, routing = step(model, pixels)
        assert [len(layer) for layer in routing.records] == [1, 1, 1]
        results[name] = loss, gradients(model)
    (loss, grads), (other_loss, other_grads) = results.values()
    torch.testing.assert_close(other_loss, loss)
    assert any(name.endswith("gate.weight") and grad.abs().sum() > 0 for name, grad in grads.items())
    for name, grad in grads.items():
        torch.testing.assert_close(other_grads[name], grad, atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_auxiliary_gradient_is_the_losses_own():
    """The gate's gradient with the losses, minus the one without, is the derivative of the losses alone."""
    pixels = torch.randn(2, 3, 12, 12)
    model = model_in_training()
    step(model, pixels)
    together = gradients(model)
    model.zero_grad()
    model(pixels).last_hidden_state.square().mean().backward()
    plain = gradients(model)
    model.zero_grad()
    with collect_routing(model) as routing:
        model(pixels)
    (0.5 * routing.balance_loss + 0.25 * routing.z_loss).backward()
    for name, parameter in model.named_parameters():
        if name.endswith("gate.weight"):
            assert parameter.grad.abs().max() > 1e-4
            torch.testing.assert_close(together[name] - plain[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_accumulated_gradients_are_the_sum_of_scaled_steps():
    batches = [torch.randn(2, 3, 12, 12) for _ in range(2)]
    model = model_in_training()
    parts = []
    for pixels in batches:
        model.zero_grad()
        step(model, pixels)
        parts.append(gradients(model))
    model.zero_grad()
    for pixels in batches:
        step(model, pixels, scale=0.5)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, (parts[0][name] + parts[1][name]) / 2, atol=1e-6, rtol=1e-4)


def test_a_loss_without_its_gradient_is_refused():
    model = model_in_training()
    for layer in encoder_layers(model):
        forward = layer.mlp.forward
        layer.mlp.forward = lambda x, run=forward: checkpoint(run, x, use_reentrant=True)
    message = "router losses have no gradient: .* use_reentrant=False"
    with pytest.raises(ConfigError, match=message), collect_routing(model):
        model(torch.randn(1, 3, 12, 12))
    with pytest.raises(ConfigError, match=message), collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12))
        routing.aux_loss(MOE)
    assert all(layer._records is None for layer in moe_layers(model))


def test_validation_without_gradients_is_fine():
    model = model_in_training()
    with torch.no_grad(), collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12))
    assert routing.aux_loss(MOE).item() > 0


def test_a_backward_inside_the_context_records_nothing_twice():
    model = model_in_training()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12)).last_hidden_state.sum().backward()
    assert [len(layer) for layer in routing.records] == [1, 1, 1]


def test_several_forwards_are_averaged_and_none_gives_zero():
    model = upcycled(build_siglip())
    perturb(model)
    batches = [torch.randn(n, 3, 12, 12) for n in (1, 3)]
    values = []
    for pixels in batches:
        with collect_routing(model) as routing:
            model(pixels)
        values.append(routing.aux_loss(MOE).item())
    with collect_routing(model) as routing:
        for pixels in batches:
            model(pixels)
    assert routing.aux_loss(MOE).item() == pytest.approx(sum(values) / 2, rel=1e-5)
    with collect_routing(model) as routing:
        pass
    assert routing.aux_loss(MOE).item() == 0


def test_nothing_is_kept_without_a_collector_or_after_it():
    model = model_in_training()
    model(torch.randn(1, 3, 12, 12)).last_hidden_state.sum().backward()
    with collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12))
    kept = weakref.ref(routing.records[0][0].balance_loss)
    del routing
    gc.collect()
    assert kept() is None


def test_collectors_do_not_nest():
    model = upcycled(build_siglip())
    with (
        collect_routing(model),
        pytest.raises(ConfigError, match="a collector already listens"),
        collect_routing(model),
    ):
        pass


def test_only_what_holds_mixtures_is_made_non_reentrant():
    model = model_in_training()
    dense = build_siglip().train()
    both = torch.nn.ModuleList([model, dense])
    for part in both:
        part.gradient_checkpointing_enable({"use_reentrant": True})
    assert use_non_reentrant_checkpointing(both) > 0
    assert use_non_reentrant_checkpointing(both) == 0
    functions = [m._gradient_checkpointing_func for m in dense.modules() if hasattr(m, "_gradient_checkpointing_func")]
    assert functions and all(f.keywords["use_reentrant"] for f in functions)


def test_bfloat16_autocast_trains_with_float32_losses():
    pixels = torch.randn(2, 3, 12, 12)
    exact, _ = step(model_in_training(), pixels)
    model = model_in_training()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, routing = step(model, pixels)
    assert routing.balance_loss.dtype == routing.z_loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, atol=0.05, rtol=0.05)
    assert all(torch.isfinite(grad).all() for grad in gradients(model).values())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_layer_in_one_graph_over_changing_token_counts(dtype):
    torch._dynamo.reset()
    layer = next(moe_layers(model_in_training())).to(dtype)
    layer.experts.backend = "grouped"  # as compiled code is; in bfloat16 the other way rounds otherwise
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for shape in ((2, 9, 32), (5, 7, 32), (1, 30, 32)):
        tokens = torch.randn(shape, dtype=dtype)
        torch.testing.assert_close(compiled(tokens), layer(tokens))


def test_compiled_encoder_reports_losses_and_gradients():
    torch._dynamo.reset()
    pixels = torch.randn(2, 3, 12, 12)
    model = model_in_training()
    loss, _ = step(model, pixels)
    expected = gradients(model)
    model.zero_grad()
    compiled = torch.compile(model, backend="aot_eager")
    with collect_routing(model) as routing:
        features = compiled(pixels).last_hidden_state
    found = features.square().mean() + routing.aux_loss(MOE)
    found.backward()
    torch.testing.assert_close(found, loss)
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-6, rtol=1e-4)


def test_loss_weights_come_from_the_config():
    model = upcycled(build_siglip())
    with collect_routing(model) as routing:
        model(torch.randn(1, 3, 12, 12))
    moe = TamConfig().moe
    expected = 1e-3 * routing.balance_loss.item() + 5e-4 * routing.z_loss.item()
    assert routing.aux_loss(moe).item() == pytest.approx(expected, rel=1e-5)
