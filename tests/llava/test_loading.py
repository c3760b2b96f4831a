"""Checkpoints through the host's ``load_pretrained_model``: whole, LoRA over a base, projector over a base."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tam_plugin.errors import ConfigError
from tests.llava import tiny
from tests.llava.test_upgrade import PROMPT, load_dense, logits, upgrade, video

pytestmark = pytest.mark.usefixtures("llava")
OPTIONS = {"device_map": "auto", "torch_dtype": "bfloat16", "attn_implementation": "sdpa"}


def load(path: Path, base: Path | None = None, name: str = "llava_qwen", **more):
    from llava.model.builder import load_pretrained_model

    return load_pretrained_model(str(path), base and str(base), name, **OPTIONS, **more)


@pytest.fixture(scope="module")
def trained(dense: Path, hub: Path):
    """An upgraded model whose visual parts differ from what upcycling made of them, in bfloat16."""
    model = upgrade(load_dense(dense, hub, torch.bfloat16), hub)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("vision_tower", "mm_projector", "image_newline")):
                parameter.add_(torch.randn_like(parameter) * 0.02)
    model.get_vision_tower().to(torch.bfloat16)  # the host loads its tower in float32 and casts it
    return model


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a checkpoint; nothing in its name says what it is."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoint"
    trained.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def expected(trained) -> torch.Tensor:
    return logits(trained, video(2).bfloat16())


def changed(whole: Path, folder: Path, **tam) -> Path:
    """A copy whose config.json says otherwise; ``moe={...}`` changes fields of a section."""
    shutil.copytree(whole, folder)
    file = folder / "config.json"
    values = json.loads(file.read_text())
    for name, value in tam.items():
        values["tam"][name] = {**values["tam"][name], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    return folder


def test_whole_checkpoint(whole: Path, expected: torch.Tensor):
    tokenizer, model, processor, context = load(whole, name="anything")
    assert type(model).__name__ == "LlavaQwenForCausalLM"
    assert torch.equal(logits(model.eval(), video(2).bfloat16()), expected)
    assert (len(tokenizer), context) == (tiny.VOCABULARY, 32768)
    assert processor.crop_size == {"height": 384, "width": 384}


def test_whole_checkpoint_in_a_fresh_process_without_a_hub(
    whole: Path, expected: torch.Tensor, host: Path, tmp_path: Path
):
    code = f"""
import torch
from llava.model.builder import load_pretrained_model
_, model, _, _ = load_pretrained_model({str(whole)!r}, None, "llava_qwen", **{OPTIONS!r})
coarse = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
frames = torch.nn.functional.interpolate(coarse, size=(384, 384), mode="bilinear").bfloat16()
with torch.no_grad():
    out = model.eval()(input_ids=torch.tensor({PROMPT.tolist()}), images=[frames], modalities=["video"],
                image_sizes=[(384, 384)]).logits
torch.save(out, {str(tmp_path / "logits.pt")!r})
"""
    # The same arithmetic as in this process: without what quickens bfloat16 where the tests train.
    environment = tiny.environment(host, tmp_path / "empty_hub", PYTHONPATH=str(host))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "logits.pt", weights_only=True), expected)


def lora_run(trained, folder: Path):
    """What a LoRA run leaves: the adapter by the host's call, the rest by the plugin's; and the merged model."""
    import copy

    peft = pytest.importorskip("peft")
    from tam_plugin.patches.llava_next.checkpoints.partial_saving import save_non_lora

    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(copy.deepcopy(trained), config)
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    save_non_lora(SimpleNamespace(model=model, args=SimpleNamespace(should_save=True)), str(folder))
    return model.merge_and_unload().eval()


@pytest.mark.parametrize("base", ["llm", "dense", "whole"])
def test_lora_over_a_base(trained, base: str, tmp_path: Path, request: pytest.FixtureRequest):
    model = lora_run(trained, tmp_path / "adapter")
    # The language model of the run is that of the dense checkpoint; a plain one is written from it.
    if base == "llm":
        folder = tmp_path / "plain"
        write_language_model(trained, folder)
    else:
        folder = request.getfixturevalue(base)
    hub = request.getfixturevalue("hub")
    with tiny.hub_cache(hub):
        _, loaded, _, _ = load(tmp_path / "adapter", folder, name="something-lora")
    frames = video(2).bfloat16()
    torch.testing.assert_close(logits(loaded.eval(), frames), logits(model, frames), atol=0.02, rtol=0.02)


def write_language_model(trained, folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import Qwen2Config

    Qwen2Config(**tiny.llm_settings()).save_pretrained(folder)
    visual = ("vision_tower", "mm_projector", "image_newline")
    state = {n: t.contiguous() for n, t in trained.state_dict().items() if not any(part in n for part in visual)}
    save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tiny.write_tokenizer(folder)


def test_projector_over_a_base(trained, whole: Path, tmp_path: Path, expected: torch.Tensor):
    projector = {n: torch.zeros_like(t) for n, t in trained.state_dict().items() if "mm_projector" in n}
    trained.config.save_pretrained(tmp_path)
    torch.save(projector, tmp_path / "mm_projector.bin")
    _, model, _, _ = load(tmp_path, whole)
    assert all(not t.any() for n, t in model.state_dict().items() if "mm_projector" in n)
    assert not torch.equal(logits(model.eval(), video(2).bfloat16()), expected)
    model.load_state_dict({n: t for n, t in trained.state_dict().items() if "mm_projector" in n}, strict=False)
    assert torch.equal(logits(model, video(2).bfloat16()), expected)


def no_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

    def fail(*args, **kwargs):
        raise AssertionError("weights were read before the error")

    monkeypatch.setattr(LlavaQwenForCausalLM, "from_pretrained", fail)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"moe": {"num_experts": 8}}, r"config.json names 8 experts .* the weights hold 4"),
        ({"moe": {"enabled": False}}, r"config.json names 0 experts .* the weights hold 4"),
        ({"moe": {"top_k": 9}}, r"MoeConfig.top_k = 9: expected a whole number from 1 to 4"),
        ({"moe": {"experts": 9}}, r"unknown field 'experts'"),
        ({"vision_encoder": {"num_hidden_layers": 4}}, r"holds no model\.vision_tower\..*layers\.2\..*incomplete"),
        ({"vision_encoder": {"intermediate_size": 32}}, r"has shape .* config.json says"),
        ({"projector": {"strides": [1, 2, 3, 4, 6]}}, r"holds no model\.mm_projector\.stride_6\.0\.weight"),
    ],
)
def test_a_configuration_that_does_not_fit(whole: Path, tmp_path: Path, monkeypatch, change: dict, message: str):
    no_weights_are_read(monkeypatch)
    with pytest.raises(ConfigError, match=message) as raised:
        load(changed(whole, tmp_path / "copy", **change))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["/nowhere/inductor", "../elsewhere", "stranger/model", ""])
@pytest.mark.parametrize("field", ["inductor", "policy"])
def test_what_a_checkpoint_names_elsewhere_is_not_read(whole: Path, tmp_path: Path, field: str, name: str):
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments, tam_config_from_args

    (tmp_path / "elsewhere").mkdir()
    folder = changed(whole, tmp_path / "copy", **{field: name})
    stored = json.loads((folder / "config.json").read_text())["tam"]
    with pytest.raises(ConfigError, match=f"tam.{field}") as raised:
        tam_config_from_args(TamArguments(), stored, folder=str(folder))
    assert "\n" not in str(raised.value)
    given = TamArguments(**{f"tam_{field}": str(tmp_path / "own")})
    assert getattr(tam_config_from_args(given, stored, folder=str(folder)), field) == str(tmp_path / "own")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000: expected a whole number from 1 to 512"),
        ({"num_hidden_layers": 500}, r"names num_hidden_layers = 500, the weights hold 2"),
        ({"vocab_size": 8_000_000}, r"names vocab_size = 8000000, the weights hold"),
        ({"intermediate_size": 10**6}, r"names intermediate_size = 1000000, the weights hold"),
        ({"hidden_size": "wide"}, r"hidden_size = 'wide'"),
    ],
)
def test_a_language_model_larger_than_its_weights(whole: Path, tmp_path: Path, monkeypatch, change: dict, message: str):
    no_weights_are_read(monkeypatch)
    folder = changed(whole, tmp_path / "copy")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConfigError, match=message):
        load(folder)


def test_missing_gates(whole: Path, tmp_path: Path, monkeypatch):
    from safetensors.torch import load_file, save_file

    folder = changed(whole, tmp_path / "copy")
    file = next(folder.glob("*.safetensors"))
    state = {name: tensor for name, tensor in load_file(file).items() if "mlp.gate" not in name}
    save_file(state, str(file), metadata={"format": "pt"})
    no_weights_are_read(monkeypatch)
    with pytest.raises(ConfigError, match=r"expected .*mlp\.gate\.weight with 4 rows, found none"):
        load(folder)


def test_adapter_and_base_must_come_together(trained, whole: Path, dense: Path, tmp_path: Path):
    lora_run(trained, tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"holds a LoRA adapter only: pass model_base"):
        load(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"is a whole checkpoint: leave model_base out"):
        load(whole, dense)
    (tmp_path / "adapter" / "tam_non_lora.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no model\.vision_tower\..*(gate|experts).*incomplete"):
        load(tmp_path / "adapter", dense)


def test_dense_checkpoints_go_to_the_host(dense: Path, hub: Path):
    with tiny.hub_cache(hub):
        _, model, _, _ = load(dense)
    assert type(model.get_vision_tower()).__name__ == "SigLipVisionTower"
