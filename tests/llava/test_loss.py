"""The training loss is L_ori + α_b·L_b + α_z·L_z, once; its gradients reach what is trained and nothing else."""

from __future__ import annotations

import inspect

import pytest
import torch

from tam_plugin.patches.llava_next import video
from tam_plugin.vision import collect_routing, moe_layers
from tests.llava.budget_model import batch, embeddings, pixels, row, tam_model

pytestmark = pytest.mark.usefixtures("llava")

ALPHA_B, ALPHA_Z = 0.3, 0.05
MOE = {"balance_loss_weight": ALPHA_B, "z_loss_weight": ALPHA_Z}


def inputs(modalities=None):
    rows = [row(9, seed=1), row(7, seed=2), row(8, image=False, seed=3)]
    images = [pixels(3, 1), pixels(2, 2), torch.zeros(1, 3, 98, 98)]
    return {**batch(rows), "images": images, "modalities": modalities or [video(3), video(1), "text"]}


def parts(model):
    """L_ori, L_b and L_z of :func:`inputs`, each by itself: the language model on the embeddings, the tower alone."""
    given = inputs()
    with torch.no_grad():
        lm = model(**given).loss
        with collect_routing(model) as routing:
            model.get_vision_tower()(torch.cat(given["images"][:2]))
    return lm, routing.balance_loss, routing.z_loss


@pytest.mark.parametrize("family", ["qwen", "llama", "mixtral"])
def test_training_loss_is_the_sum_and_evaluation_loss_is_not(family):
    model = tam_model(moe=MOE, family=family)
    if family == "mixtral" and not hasattr(model, "vocab_size"):
        pytest.skip("LLaVA-NeXT's Mixtral class has no vocab_size, which this transformers needs for the loss")
    lm, balance, z = parts(model)
    assert balance > 0 and z > 0
    model.train()
    total = model(**inputs()).loss
    torch.testing.assert_close(total, lm + ALPHA_B * balance + ALPHA_Z * z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(**inputs(), return_dict=False)[0], total, atol=1e-5, rtol=1e-5)
    model.eval()
    assert torch.equal(model(**inputs()).loss, lm)


def test_a_batch_of_text_trains_no_router():
    model = tam_model(moe=MOE).train()
    given = {**batch([row(8, image=False)]), "images": [torch.zeros(1, 3, 98, 98)], "modalities": ["text"]}
    loss = model(**given).loss
    loss.backward()
    with torch.no_grad():
        assert torch.equal(model.eval()(**given).loss, loss)
    for layer in moe_layers(model):
        assert torch.count_nonzero(layer.gate.weight.grad) == 0


def test_signature_stays_the_hosts():
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    parameters = inspect.signature(LlavaQwenForCausalLM.forward).parameters
    assert "dpo_forward" in parameters
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def test_bfloat16():
    model = tam_model(moe=MOE).to(torch.bfloat16).train()
    given = inputs()
    given["images"] = [image.to(torch.bfloat16) for image in given["images"]]
    loss = model(**given).loss
    loss.backward()
    with torch.no_grad():
        exact = tam_model(moe=MOE).train()(**inputs()).loss
    assert abs(loss.item() - exact.item()) < 0.02 * exact.item()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


STAGES = {"language model only": False, "everything": True}


def gradients(trains_vision: bool, checkpointing: bool) -> dict[str, torch.Tensor | None]:
    model = tam_model(moe=MOE).train()
    model.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if "vision_tower" in name or "mm_projector" in name:
            parameter.requires_grad_(trains_vision)
    if checkpointing:  # as the host's train() and transformers before 4.57 do
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
    model(**inputs()).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_what_is_trained_and_nothing_frozen(stage, checkpointing):
    trains_vision = STAGES[stage]
    found = gradients(trains_vision, checkpointing)
    # Read by nothing: the tower gives features before its last normalization.
    unused = {name for name in found if "post_layernorm" in name}
    for name, gradient in found.items():
        is_vision = "vision_tower" in name or "mm_projector" in name
        if is_vision and not trains_vision:
            assert gradient is None, f"{name} is frozen"
        elif "stride_2" in name or "stride_4" in name or name in unused:
            assert gradient is not None and torch.count_nonzero(gradient) == 0, f"{name} was not used"
        elif name.endswith("k_proj.bias"):  # softmax does not see it: its gradient is zero but for rounding
            assert gradient is not None
        else:
            assert gradient is not None and torch.count_nonzero(gradient) > 0, f"{name} has no gradient"
    if trains_vision:
        assert sum("gate.weight" in name for name in found) == 2
        assert any("stride_1" in name for name in found) and any("stride_3" in name for name in found)


@pytest.mark.parametrize("stage", STAGES)
def test_checkpointing_changes_no_gradient(stage):
    plain, recomputed = (gradients(STAGES[stage], c) for c in (False, True))
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_torch_compile_compiles_the_language_model_and_changes_no_gradient():
    from torch._dynamo.testing import CompileCounterWithBackend

    def gradients_of(model, run) -> dict[str, torch.Tensor]:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": True})
        for modalities in ([video(3), video(1), "text"], [video(2), video(4), "text"]):
            run(**inputs(modalities)).loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters()}

    model = tam_model(moe=MOE).train()
    expected = gradients_of(model, model)
    model, counter = tam_model(moe=MOE).train(), CompileCounterWithBackend("aot_eager")
    found = gradients_of(model, torch.compile(model, backend=counter))
    assert counter.frame_count > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_embeddings_alone_have_no_router_losses():
    model = tam_model(moe=MOE).train()
    given = inputs()
    (embeds, *_) = embeddings(model, batch([row(9)]), given["images"][:1], given["modalities"][:1])
    labels = torch.zeros(1, len(embeds), dtype=torch.long)
    with torch.no_grad():
        assert torch.equal(
            model(inputs_embeds=embeds[None], labels=labels).loss,
            model.eval()(inputs_embeds=embeds[None], labels=labels).loss,
        )


def test_meter_averages_since_it_was_read():
    from tam_plugin.patches.llava_next.model.loss import meter_of

    model = tam_model(moe=MOE)
    lm, balance, z = parts(model)
    model.train()
    for _ in range(2):
        model(**inputs())
    text = {**batch([row(8, image=False)]), "images": [torch.zeros(1, 3, 98, 98)], "modalities": ["text"]}
    text_loss = model(**text).loss
    meter = meter_of(torch.nn.Sequential(model))
    logs = meter.take()
    assert logs["L_ori"] == pytest.approx((2 * lm.item() + text_loss.item()) / 3, rel=1e-5)
    assert (logs["L_b"], logs["L_z"]) == pytest.approx((balance.item(), z.item()), rel=1e-5)
    loads = [logs[f"expert_load_{e}"] for e in range(4)]
    assert sum(loads) == pytest.approx(1) and max(loads) <= logs["expert_load_max"] <= 0.5
    assert meter.take() == {}
    model.eval()
    model(**inputs())
    assert meter.take() == {}


def test_dense_tower_and_one_projector_have_no_router_losses():
    model = tam_model(moe={"enabled": False}, projector={"gate": "single"})
    with torch.no_grad():
        assert torch.equal(model(**inputs()).loss, model.train()(**inputs()).loss)
