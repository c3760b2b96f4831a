"""The training-step benchmark: what it trains, that both ways see the same, its rows, and its refusals."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch

from tam_plugin.bench import step
from tam_plugin.cli.bench import describe
from tam_plugin.errors import InputError, TamError

CPU = torch.device("cpu")
WAYS = (step.DENSE, step.TAM)
HAS_CUDA = torch.cuda.is_available()
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA GPU (random 7B weights in bfloat16)")


def arguments(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    step.add_arguments(parser)
    return parser.parse_args(["--rounds", "1", *argv])


def tiny(way, stride=2):
    torch.manual_seed(0)
    fields = step.model_fields("tiny")
    model = step.build(way, fields, stride, CPU, torch.float32)
    return model, step.inputs_of(way, step.training_batch(fields, 2, stride, CPU, torch.float32))


def test_tiny_on_a_cpu_gives_rows_losses_and_says_what_it_is():
    result = json.loads(json.dumps(step.run(arguments("--frames", "2", "--device", "cpu"))))
    assert set(result) == {
        *("preset", "device", "gpu", "dtype", "frames", "stride", "visual_tokens", "text_tokens", "rounds"),
        *("trained_parameters", "losses", "peak_memory_gib", "notes", "rows"),
    }
    assert (result["preset"], result["device"], result["dtype"]) == ("tiny", "cpu", "float32")
    assert result["visual_tokens"] == 2 * 14 * 14 + 1  # ceil(27 / 2) = 14 a side, and a newline
    assert [row["name"] for row in result["rows"]] == list(WAYS)
    assert result["rows"][0]["ratio"] == 1.0 and all(row["seconds"] > 0 for row in result["rows"])
    assert set(result["losses"]) == set(WAYS) and all(math.isfinite(x) for x in result["losses"].values())
    assert result["peak_memory_gib"] == dict.fromkeys(WAYS)
    assert "preset tiny" in describe(result) and "not measured on a CPU" in describe(result)


def expected_to_train(way):
    layers = [f"model.language_model.layers.{n}" for n in range(2)]
    linears = [f"self_attn.{x}_proj" for x in "qkvo"] + [f"mlp.{x}_proj" for x in ("gate", "up", "down")]
    names = {f"{at}.{x}.lora_{ab}.default.weight" for at in layers for x in linears for ab in "AB"}
    mlps = [f"encoder.layers.{n}.mlp" for n in range(2)]
    inside = "" if way == step.DENSE else "experts."
    names |= {f"{at}.{inside}{fc}.{kind}" for at in mlps for fc in ("fc1", "fc2") for kind in ("weight", "bias")}
    projectors = [""] if way == step.DENSE else [f"stride_{s}." for s in (1, 2, 3, 4)]
    kinds = ("weight", "bias")
    names |= {f"model.multi_modal_projector.{p}linear_{n}.{kind}" for p in projectors for n in (1, 2) for kind in kinds}
    return names | ({f"{at}.gate.weight" for at in mlps} if way == step.TAM else set())


def short(name):
    """Without the tower's prefix, which is another in each generation of transformers."""
    return name.removeprefix("model.vision_tower.").removeprefix("vision_model.")


@pytest.mark.parametrize("way", WAYS)
def test_only_the_intended_parameters_get_gradients_and_move(way):
    model, inputs = tiny(way)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    step.TrainingStep(model, inputs)()
    named = dict(model.named_parameters())
    assert {short(name) for name, p in named.items() if p.grad is not None} == expected_to_train(way)
    frozen = [name for name, p in named.items() if p.grad is None]
    assert frozen and all(torch.equal(named[name], before[name]) for name in frozen)
    # LoRA's B starts at zero, so A gets no gradient in the first step; idle projectors get zeros.
    busy = [n for n, p in named.items() if p.grad is not None and p.grad.abs().sum() > 0]
    idle = {short(n) for n in named if "lora_A" in n} | {
        short(n) for n in named if any(f".stride_{s}." in n for s in (1, 3, 4))
    }
    assert {short(n) for n in busy} == expected_to_train(way) - idle
    assert all(not torch.equal(named[n], before[n]) for n in busy)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_both_ways_compute_the_same_next_token_loss_before_training(stride):
    losses = []
    for way in WAYS:
        model, inputs = tiny(way, stride)
        with torch.no_grad():
            output = model(**inputs)
        losses.append(float(output.lm_loss if way == step.TAM else output.loss))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def trained_of_7b(experts, projectors):
    """By hand, from the published sizes: (D, J) = (1152, 4304) in 26 layers; (H, I) = (3584, 18944), k and v of 512."""
    mlp = 2 * 1152 * 4304 + 4304 + 1152
    gate = 0 if experts == 1 else experts * 1152
    projector = 1152 * 3584 + 3584 * 3584 + 2 * 3584
    lora = 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    return 26 * (experts * mlp + gate) + projectors * projector + 28 * lora


@pytest.mark.parametrize(("way", "experts", "projectors"), [(step.DENSE, 1, 1), (step.TAM, 4, 4)])
def test_7b_has_the_published_sizes(way, experts, projectors):
    model = step.build(way, step.model_fields("7b"), 2, torch.device("meta"), torch.bfloat16)
    parameters = dict(model.named_parameters())
    assert {p.dtype for p in parameters.values()} == {torch.bfloat16}
    assert sum(p.numel() for p in parameters.values() if p.requires_grad) == trained_of_7b(experts, projectors)
    language = [p for n, p in parameters.items() if "vision" not in n and "projector" not in n and "lora" not in n]
    # Qwen2-7B-Instruct's model.safetensors.index.json: 15,231,233,024 bytes; with one newline token here.
    assert sum(p.numel() for p in language) == 15_231_233_024 // 2 + 3584


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--frames", "0"), r"^--frames 0: expected a whole number >= 1$"),
        (("--rounds", "0"), r"^--rounds 0: expected a whole number >= 1$"),
        (("--stride", "5"), r"^--stride 5: expected one of 1, 2, 3, 4$"),
        (("--preset", "7b", "--device", "cpu"), r"^--preset 7b: expected a CUDA GPU.*use --preset tiny$"),
    ],
)
def test_bad_arguments_are_refused(argv, message):
    with pytest.raises(InputError, match=message):
        step.run(arguments(*argv))


@pytest.mark.skipif(HAS_CUDA, reason="this machine has a CUDA GPU")
def test_cuda_without_a_gpu_is_refused():
    with pytest.raises(InputError, match="--device cuda: torch finds no CUDA GPU"):
        step.run(arguments("--device", "cuda"))


@needs_cuda
@pytest.mark.slow
def test_7b_on_a_gpu():
    result = step.run(arguments("--preset", "7b", "--device", "cuda", "--frames", "8"))
    assert result["dtype"] == "bfloat16" and result["visual_tokens"] == 8 * 196 + 1
    assert all(math.isfinite(x) for x in result["losses"].values())
    # More than the language model alone takes, and the mixture more than the dense model.
    assert 14 < result["peak_memory_gib"][step.DENSE] < result["peak_memory_gib"][step.TAM]


@needs_cuda
def test_too_little_memory_is_one_line_that_says_how_much_there_was():
    torch.cuda.set_per_process_memory_fraction(0.01)
    try:
        with pytest.raises(
            TamError, match=r"does not have enough memory: [\d.]+ GiB, of which [\d.]+ GiB were free"
        ) as error:
            step.run(arguments("--preset", "7b", "--device", "cuda", "--frames", "1"))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "\n" not in str(error.value)
