"""``tam merge`` on files alone: every tensor against float64, configuration, small files, the same command again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tam_plugin.cli.main import main
from tam_plugin.config import TamConfig

from .conftest import all_tensors, digests, write_sharded

WIDE, INNER, LAYERS, ROWS, VISION = 32, 48, 3, 40, 24
ENCODER = {
    "hidden_size": VISION,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": 28,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.0,
}
PREFIX = "base_model.model."
TOWER = "model.vision_tower."
ADAPTER = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "target_modules": ["q_proj", "down_proj"],
    "r": 4,
    "lora_alpha": 8,
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
}


def merge(*argv: object) -> int:
    """``tam merge`` in this process."""
    return main(["merge", *map(str, argv)])


def language_model(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A Qwen2's tensors by their names."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {"model.embed_tokens.weight": (ROWS, WIDE), "model.norm.weight": (WIDE,), "lm_head.weight": (ROWS, WIDE)}
    for n in range(LAYERS):
        start = f"model.layers.{n}."
        shapes |= {f"{start}self_attn.{part}_proj.weight": (WIDE, WIDE) for part in "qkvo"}
        shapes |= {f"{start}mlp.{part}_proj.weight": (INNER, WIDE) for part in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (WIDE, INNER), f"{start}self_attn.q_proj.bias": (WIDE,)}
        shapes |= {f"{start}{part}_layernorm.weight": (WIDE,) for part in ("input", "post_attention")}
    return {name: torch.randn(shape, generator=draw).to(dtype) for name, shape in shapes.items()}


def visual(tam: TamConfig, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """A TAM model's visual tensors by their names."""
    from tam_plugin.patches.llava_next.model.tower import TamVisionTower
    from tam_plugin.vision.projector import ResolutionProjectors

    dense = nn.Sequential(nn.Linear(VISION, WIDE), nn.GELU(), nn.Linear(WIDE, WIDE))
    parts = {TOWER: TamVisionTower(tam), "model.mm_projector.": ResolutionProjectors(dense, tam.projector, tam.moe)}
    state = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.state_dict().items()}
    state["model.image_newline"] = torch.empty(WIDE)
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(tensor.shape, generator=draw).to(dtype) for name, tensor in state.items()}


def of_adapter(modules: list[str], state: dict[str, torch.Tensor], seed: int, rank: int = 4) -> dict[str, torch.Tensor]:
    """LoRA of modules, in float32."""
    draw, pairs = torch.Generator().manual_seed(seed), {}
    for module in modules:
        tall, wide = state[f"{module}.weight"].shape
        pairs[f"{PREFIX}{module}.lora_A.weight"] = torch.randn(rank, wide, generator=draw)
        pairs[f"{PREFIX}{module}.lora_B.weight"] = torch.randn(tall, rank, generator=draw)
    return pairs


TAM = TamConfig().replace(moe={"num_experts": 2, "top_k": 1}, projector={"strides": (1, 2)}, vision_encoder=ENCODER)
LLM_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": ROWS,
    "hidden_size": WIDE,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "dtype": "bfloat16",
    "rope_theta": 10000.0,
}


class Material:
    """A base and a LoRA run over it, in a folder."""

    def __init__(self, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        self.base, self.run = folder / "base", folder / "run"
        self.base.mkdir()
        self.run.mkdir()
        self.of_base, self.extras = language_model(0, dtype), visual(TAM, 1, dtype)
        write_sharded(self.base, self.of_base, 3)
        (self.base / "config.json").write_text(json.dumps(LLM_CONFIG))
        (self.base / "generation_config.json").write_text('{"do_sample": false}')
        (self.base / "vocab.json").write_text('{"a": 0}')
        (self.base / "tokenizer_config.json").write_text('{"of": "base"}')
        values = {**LLM_CONFIG, "model_type": "llava_qwen", "dtype": "float32", "rope_theta": 5e6}
        values |= {"mm_vision_tower": "tam", "tam": TAM.to_dict(), "mm_hidden_size": VISION}
        values |= {"mm_projector_type": "mlp2x_gelu", "mm_patch_merge_type": "spatial_unpad"}
        (self.run / "config.json").write_text(json.dumps(values))
        modules = [f"model.layers.{n}.{name}" for n in range(LAYERS) for name in ("self_attn.q_proj", "mlp.down_proj")]
        modules.append(f"{TOWER}vision_tower.vision_model.encoder.layers.0.self_attn.q_proj")
        modules.append(f"{TOWER}vision_tower.vision_model.encoder.layers.1.self_attn.q_proj")
        self.pairs = of_adapter(modules, self.of_base | self.extras, 2)
        self.modules = modules
        self.write(self.pairs, self.extras)

    def write(self, pairs: dict[str, torch.Tensor], extras: dict[str, torch.Tensor], **adapter: object) -> None:
        """The run's weights and the adapter's configuration."""
        save_file(pairs, self.run / "adapter_model.safetensors")
        save_file(extras, self.run / "tam_non_lora.safetensors", metadata={"format": "pt"})
        (self.run / "adapter_config.json").write_text(json.dumps({**ADAPTER, **adapter}))

    def expected(self, scale: float) -> dict[str, torch.Tensor]:
        """The whole model's tensors, sums in float64."""
        state = self.of_base | self.extras
        sums = {}
        for module in self.modules:
            a, b = (self.pairs[f"{PREFIX}{module}.lora_{kind}.weight"].double() for kind in "AB")
            sums[f"{module}.weight"] = state[f"{module}.weight"].double() + scale * b @ a
        return state | sums


@pytest.fixture
def material(tmp_path: Path) -> Material:
    return Material(tmp_path)


@pytest.mark.parametrize(
    ("changes", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0), ({"lora_alpha": 1}, 0.25)], ids=["r", "rs", "alpha"]
)
def test_every_tensor_of_the_result(material: Material, tmp_path: Path, capsys, changes: dict, scale: float):
    material.write(material.pairs, material.extras, **changes)
    assert merge(material.run, tmp_path / "whole", "--base", material.base, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["notes"] == [] and said["resumed"] == 0 and said["written"] > 0
    found, expected = all_tensors(tmp_path / "whole"), material.expected(scale)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == torch.bfloat16
        if tensor.dtype == torch.float64:  # rounded once: half of the last of bfloat16's eight bits
            assert ((found[name].double() - tensor).abs() <= tensor.abs() * 2.0**-8 + 1e-6).all(), name
            rounded = tensor.bfloat16() == found[name]
            assert rounded.float().mean() > 0.99  # float32 may fall on the other side of a tie
        else:
            assert torch.equal(found[name], tensor), name


def test_config_and_small_files(material: Material, tmp_path: Path):
    assert merge(material.run, tmp_path / "first", "--base", material.base) == 0
    run, whole = (json.loads((f / "config.json").read_text()) for f in (material.run, tmp_path / "first"))
    assert whole == {**run, "dtype": "bfloat16", "architectures": ["LlavaQwenForCausalLM"]}
    assert json.loads((tmp_path / "first" / "tokenizer_config.json").read_text()) == {"of": "base"}
    assert (tmp_path / "first" / "generation_config.json").is_file()
    assert not (tmp_path / "first" / "adapter_config.json").exists()
    # A checkpoint-N holds the state of the training too; of this the tokenizer alone goes along.
    (material.run / "tokenizer.json").write_text("{}")
    (material.run / "tokenizer_config.json").write_text('{"of": "run"}')
    (material.run / "trainer_state.json").write_text("{}")
    (material.run / "optimizer.pt").write_bytes(b"not read")
    assert merge(material.run, tmp_path / "second", "--base", material.base) == 0
    inside = {path.name for path in (tmp_path / "second").iterdir() if "safetensors" not in path.name}
    assert inside == {
        "config.json",
        "generation_config.json",
        "tam_upcycle.jsonl",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert json.loads((tmp_path / "second" / "tokenizer_config.json").read_text()) == {"of": "run"}


def test_a_run_over_an_earlier_tam_checkpoint_with_other_projectors(material: Material, tmp_path: Path):
    """From stage 2 to stage 3: the base's one projector is none of the model's."""
    stage_2 = TAM.replace(moe={"enabled": False}, projector={"gate": "single"})
    folder = tmp_path / "stage2"
    shutil.copytree(material.base, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    write_sharded(folder, material.of_base | visual(stage_2, 5, torch.bfloat16), 4)
    values = json.loads((material.run / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "tam": stage_2.to_dict()}))
    assert merge(material.run, tmp_path / "whole", "--base", folder) == 0
    assert merge(material.run, tmp_path / "plain", "--base", material.base) == 0
    ours, theirs = all_tensors(tmp_path / "whole"), all_tensors(tmp_path / "plain")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config["tam"] == TAM.to_dict()


def test_an_adapter_of_an_older_peft_and_projectors_of_another_kind(material: Material, tmp_path: Path):
    assert merge(material.run, tmp_path / "first", "--base", material.base) == 0
    torch.save(material.pairs, material.run / "adapter_model.bin")
    (material.run / "adapter_model.safetensors").unlink()
    values = json.loads((material.run / "config.json").read_text())
    (material.run / "config.json").write_text(json.dumps({**values, "mm_projector_type": "mlp2x_res2x_gelu"}))
    assert merge(material.run, tmp_path / "second", "--base", material.base) == 0
    ours, theirs = all_tensors(tmp_path / "second"), all_tensors(tmp_path / "first")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_command_again_and_another_adapter(material: Material, tmp_path: Path, capsys):
    argv = (material.run, tmp_path / "whole", "--base", material.base)
    assert merge(*argv) == 0
    made = digests(tmp_path / "whole")
    capsys.readouterr()
    assert merge(*argv, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written_bytes"] == 0 and digests(tmp_path / "whole") == made
    save_file({name: -tensor for name, tensor in material.pairs.items()}, material.run / "adapter_model.safetensors")
    assert merge(*argv) == 2
    err = capsys.readouterr().err
    assert "belongs to another conversion (another adapter)" in err and err.count("\n") == 1
    assert digests(tmp_path / "whole") == made
    assert merge(*argv, "--overwrite") == 0
    assert digests(tmp_path / "whole") != made
