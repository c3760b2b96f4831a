"""What ``tam merge`` refuses: exit code 2, one line that says what is wrong, and nothing written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .test_merge import PREFIX, TAM, TOWER, Material, material, merge, write_sharded

__all__ = ["material"]  # the fixture

LAYER = f"{PREFIX}model.layers.1.self_attn.q_proj"
GATE = f"{TOWER}vision_tower.vision_model.encoder.layers.1.mlp.gate.weight"


def config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


def adapter(**changes: object):
    return lambda m: m.write(m.pairs, m.extras, **changes)


def pairs(*, without: tuple[str, ...] = (), **more: torch.Tensor):
    def change(m: Material) -> None:
        named = {name.replace("__", "."): tensor for name, tensor in more.items()}
        m.write({name: t for name, t in m.pairs.items() if not name.startswith(without)} | named, m.extras)

    return change


def extras(*, without: str = "\n", add: dict[str, torch.Tensor] | None = None):
    def change(m: Material) -> None:
        m.write(m.pairs, {name: t for name, t in m.extras.items() if without not in name} | (add or {}))

    return change


def drop(name: str):
    return lambda m: (m.run / name).unlink()


def torn(m: Material) -> None:
    path = m.run / "adapter_model.safetensors"
    os.truncate(path, path.stat().st_size - 3)


def uneven(m: Material) -> None:
    config(m.run, mm_projector_type="mlp2x_res2x_gelu")
    extras(without="stride_2.2.bias")(m)


def lone_base(m: Material, *names: str) -> None:
    for path in m.base.glob("*.safetensors*"):
        path.unlink()
    write_sharded(m.base, {name: t for name, t in m.of_base.items() if name not in names}, 2)


def moved(m: Material) -> None:
    """The adapter of a wider model."""
    wider = {name: torch.cat([t, t], -1) if "lora_A" in name else t for name, t in m.pairs.items()}
    m.write(wider, m.extras)


CASES = [
    (lambda m: shutil.rmtree(m.run), "does not exist: expected the output_dir or a checkpoint-N"),
    (drop("config.json"), "holds no config.json"),
    (lambda m: config(m.run, mm_vision_tower="google/siglip"), "mm_vision_tower = 'google/siglip' in config.json"),
    (lambda m: config(m.run, tam=None), "has mm_vision_tower = 'tam' but no 'tam' section"),
    (lambda m: config(m.run, tam={"moe": {"experts": 3}}), "unknown field 'experts'"),
    (lambda m: config(m.run, tam={}), "no tam.vision_encoder"),
    (lambda m: config(m.run, tam=TAM.replace(moe={"num_experts": 8}).to_dict()), "names 8 experts"),
    (
        lambda m: config(m.run, tam=TAM.replace(projector={"strides": (1, 2, 5)}).to_dict()),
        "holds no model.mm_projector.stride_5.0.weight: the checkpoint is incomplete",
    ),
    (lambda m: config(m.run, architectures=["GPT2"], model_type="gpt2"), "is of the family 'gpt2'"),
    (lambda m: config(m.run, model_type="llava_llama", architectures=[]), "the run in"),
    (lambda m: config(m.run, hidden_size=64), "has hidden_size = 32, the run in"),
    (drop("adapter_model.safetensors"), "but no adapter_model.safetensors: the run was stopped while it saved"),
    (drop("adapter_config.json"), "holds neither adapter_config.json nor mm_projector.bin"),
    (drop("tam_non_lora.safetensors"), "holds no tam_non_lora.safetensors"),
    (
        lambda m: (drop("adapter_config.json")(m), save_file({}, m.run / "model.safetensors")),
        "it is a whole checkpoint",
    ),
    (torn, "expected a whole safetensors file"),
    (adapter(use_dora=True), "use_dora = True: expected it unset"),
    (adapter(modules_to_save=["lm_head"]), "modules_to_save = ['lm_head']: expected it unset"),
    (adapter(bias="lora_only"), "bias = 'lora_only': expected 'none'"),
    (adapter(fan_in_fan_out=True), "fan_in_fan_out = True: expected it unset"),
    (adapter(lora_bias=True), "lora_bias = True: expected it unset"),
    (adapter(target_parameters=["experts.fc1.weight"]), "target_parameters = ['experts.fc1.weight']"),
    (adapter(a_field_of_tomorrow={"a": 1}), "a_field_of_tomorrow = {'a': 1}: expected it unset"),
    (adapter(init_lora_weights="pissa"), "init_lora_weights = 'pissa' changes the base's weights"),
    (adapter(peft_type="IA3"), "peft_type = 'IA3': expected 'LORA'"),
    (adapter(r=0), "r = 0: expected a whole number >= 1"),
    (adapter(r=8), "lora_A.weight has shape [4, 48], but adapter_config.json says [8, …]"),
    (adapter(lora_alpha="8"), "lora_alpha = '8': expected a number"),
    (adapter(rank_pattern={"q_proj": 2}), "lora_A.weight has shape [4, 32], but adapter_config.json says [2, …]"),
    (adapter(rank_pattern={"q_proj(": 2}), "rank_pattern: 'q_proj(' is not a regular expression"),
    (adapter(rank_pattern=["q_proj"]), "rank_pattern = ['q_proj']: expected a mapping"),
    (adapter(target_modules=None), "target_modules is missing"),
    (adapter(target_modules=["down_proj"]), "self_attn.q_proj, which target_modules = ['down_proj']"),
    (adapter(target_modules=r".*\.layers\.[02]\..*"), "which target_modules = "),
    (pairs(without=(LAYER,)), "holds no LoRA of model.layers.1.self_attn.q_proj, which adapter_config.json names"),
    (pairs(without=(f"{LAYER}.lora_A",)), "holds no lora_A of model.layers.1.self_attn.q_proj"),
    (pairs(without=("",)), "holds no LoRA weights"),
    (pairs(base_model__model__lm_head__weight=torch.zeros(2, 2)), "holds base_model.model.lm_head.weight: expected"),
    (pairs(base_model__model__x__lora_embedding_A=torch.zeros(2, 2)), "holds base_model.model.x.lora_embedding_A"),
    (
        pairs(
            base_model__model__extra__q_proj__lora_A__weight=torch.zeros(4, 3),
            base_model__model__extra__q_proj__lora_B__weight=torch.zeros(3, 4),
        ),
        "holds LoRA of extra.q_proj, but there is no extra.q_proj.weight",
    ),
    (moved, "the adapter"),
    (extras(without="mlp.gate"), "mlp.gate.weight with 2 rows, found none"),
    (extras(without="stride_2.2.bias"), "holds no model.mm_projector.stride_2.2.bias: the checkpoint is incomplete"),
    (uneven, "holds no model.mm_projector.stride_2.2.bias: the checkpoint is incomplete"),
    (extras(without="image_newline"), "holds no model.image_newline"),
    (
        extras(add={"model.image_newline": torch.zeros(7)}),
        "model.image_newline has shape [7], but config.json says [32]",
    ),
    (extras(add={f"{TOWER}head.weight": torch.zeros(7)}), f"holds {TOWER}head.weight, which the model that"),
    (extras(add={"model.strange": torch.zeros(7)}), "holds model.strange, which the model that config.json makes"),
    (extras(add={"model.norm.weight": torch.zeros(7)}), "model.norm.weight has shape [7], that of the base [32]"),
    (extras(add={GATE: torch.zeros(2, 7)}), "has shape [2, 7], but config.json says [2, 24]"),
    (lambda m: shutil.rmtree(m.base), "does not exist: expected a checkpoint folder"),
    (lambda m: lone_base(m, "model.layers.2.mlp.up_proj.weight"), "holds no model.layers.2.mlp.up_proj.weight"),
    (lambda m: lone_base(m, "lm_head.weight"), "holds no lm_head.weight"),
    (lambda m: shutil.copy(m.run / "adapter_config.json", m.base), "holds an adapter itself"),
    (
        lambda m: config(m.base, model_type="mixtral", architectures=["MixtralForCausalLM"]),
        "of the family 'llava_mixtral'",
    ),
]


@pytest.mark.parametrize(("spoil", "words"), CASES)
def test_one_line_and_nothing_written(material: Material, tmp_path: Path, capsys, spoil, words: str):
    spoil(material)
    assert merge(material.run, tmp_path / "whole", "--base", material.base) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert words in captured.err, captured.err
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("base", "is the base itself"),
        ("run/whole", "lies inside the run"),
        (".", "contains the"),
        ("taken", "is not empty (it holds 'notes.txt')"),
    ],
)
def test_targets_that_are_refused(material: Material, tmp_path: Path, capsys, target: str, words: str):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    assert merge(material.run, tmp_path / target, "--base", material.base) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_the_base_must_be_named(material: Material, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        merge(material.run, tmp_path / "whole")
    assert stopped.value.code == 2 and "--base" in capsys.readouterr().err
