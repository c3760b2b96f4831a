"""Training forward: the loss of Eq. 4, gradients under every kind of checkpointing, accumulation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tam_plugin.budget.layout import NEWLINE_POSITIONS
from tam_plugin.patches.onevision import VideoTurn, build_inputs
from tam_plugin.vision import moe_layers

ALPHA_B, ALPHA_Z = 0.3, 0.2


@pytest.fixture
def batch(dense_and_tokenizer, make_tam, frames):
    """A training batch of two strides and a text-only row, for a diverged model with visible loss weights."""
    model = make_tam(diverge=True, moe={"balance_loss_weight": ALPHA_B, "z_loss_weight": ALPHA_Z}).train()
    turns = [
        VideoTurn(question="Fine?", frames=frames(2, 1), pool_stride=1, answer="yes"),
        VideoTurn(question="Words?", answer="no"),
        VideoTurn(question="Coarse?", frames=frames(3, 2), pool_stride=3, answer="perhaps"),
    ]
    return model, build_inputs(turns, dense_and_tokenizer[1], model.config)


def losses_by_hand(gate_logits, num_experts, top_k):
    """ST-MoE balance and z loss of one layer in float64 (Zoph et al., Eq. 5 and 6)."""
    logits = np.asarray(gate_logits, dtype=np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.argsort(-logits, axis=-1)[:, :top_k]
    load = np.bincount(chosen.ravel(), minlength=num_experts) / chosen.size
    z = np.log(np.exp(logits).sum(-1))
    return num_experts * (load * shares.mean(0)).sum(), (z**2).mean()


def test_training_loss_is_equation_4(batch):
    model, inputs = batch
    inputs_of_gates = []
    hooks = [m.gate.register_forward_hook(lambda g, a, o: inputs_of_gates.append((g, a[0]))) for m in moe_layers(model)]
    output = model(**inputs)
    for hook in hooks:
        hook.remove()
    by_hand = [losses_by_hand((x.double() @ g.weight.double().T).detach(), 4, 2) for g, x in inputs_of_gates]
    balance, z = np.mean(by_hand, axis=0)
    assert len(by_hand) == 2
    assert output.balance_loss.item() == pytest.approx(balance, rel=1e-4)
    assert output.z_loss.item() == pytest.approx(z, rel=1e-4)
    assert output.loss.item() == pytest.approx(output.lm_loss.item() + ALPHA_B * balance + ALPHA_Z * z, rel=1e-5)
    with torch.no_grad():
        evaluated = model.eval()(**inputs)
    assert evaluated.loss.item() == pytest.approx(output.lm_loss.item(), rel=1e-5)
    assert evaluated.balance_loss is None


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("use_reentrant", [None, True, False])
@pytest.mark.parametrize("frozen_embedding", [False, True])
def test_checkpointing_changes_no_gradient(batch, use_reentrant, frozen_embedding):
    model, inputs = batch
    if frozen_embedding:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("embed" not in name)
    plain = gradients(model, inputs)
    # The name that the Trainer of transformers 5.24 calls; it hands over more than the old name takes.
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable(None if use_reentrant is None else {"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    checkpointed = gradients(model, inputs)
    assert checkpointed.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(checkpointed[name], expected, atol=1e-6, rtol=1e-4, msg=name)
    assert all(plain[n].abs().sum() > 0 for n in plain if ".gate." in n or "experts.fc" in n)


@pytest.mark.slow
def test_torch_compile_changes_no_gradient(batch):
    from torch._dynamo.testing import CompileCounterWithBackend

    model, inputs = batch
    plain = gradients(model, inputs)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    counter = CompileCounterWithBackend("aot_eager")
    torch.compile(model, backend=counter)(**inputs).loss.backward()
    assert counter.frame_count > 0
    for name, expected in plain.items():
        torch.testing.assert_close(model.get_parameter(name).grad, expected, atol=1e-6, rtol=1e-4, msg=name)


def test_unselected_projectors_get_zero_gradients_and_selected_ones_do_not(batch):
    model, inputs = batch
    found = gradients(model, inputs)
    sizes = {
        s: found[f"model.multi_modal_projector.stride_{s}.linear_1.weight"].abs().sum().item() for s in range(1, 5)
    }
    assert sizes[1] > 0 and sizes[3] > 0 and sizes[2] == sizes[4] == 0


@pytest.mark.parametrize("position", NEWLINE_POSITIONS)
def test_the_newline_has_a_gradient_wherever_it_stands(batch, dense_and_tokenizer, frames, position):
    """Data parallelism waits for it also where the checkpoint has no newline tokens."""
    model, _ = batch
    model.config.newline_position = position
    turn = VideoTurn(question="Fine?", frames=frames(2, 1), pool_stride=1, answer="yes")
    found = gradients(model, build_inputs([turn], dense_and_tokenizer[1], model.config))["model.image_newline"]
    assert bool(found.abs().sum()) == (position != "no_token")


def test_bf16_autocast_trains(batch):
    model, inputs = batch
    plain = model(**inputs).loss.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**inputs)
    output.loss.backward()
    assert output.balance_loss.dtype == output.z_loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(plain, rel=0.03)


def test_a_few_steps_lower_the_loss(batch):
    model, inputs = batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        output = model(**inputs)
        output.loss.backward()
        optimizer.step()
        losses.append(output.lm_loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_trainer_divides_accumulated_losses_itself(batch):
    # Trainer reads this attribute; with it unset, router losses would grow with the accumulation steps.
    assert batch[0].accepts_loss_kwargs is False
