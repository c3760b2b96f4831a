"""``--tam_*`` arguments through the host's own parser, and what is refused before any weight is loaded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tam_plugin.config import MoeConfig
from tam_plugin.errors import ConfigError, TamError
from tests.llava import tiny

HERE = ("--attn_implementation", "sdpa", "--image_aspect_ratio", "anyres")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def parse(llava_train: Path, hub: Path, tmp_path: Path):
    """Parse a command line as the host's ``train()`` does."""
    from llava.train.train import DataArguments, ModelArguments, TrainingArguments
    from transformers import HfArgumentParser

    def parse(*args: object):
        parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
        with tiny.hub_cache(hub):
            return parser.parse_args_into_dataclasses(
                [*("--output_dir", str(tmp_path), "--bf16", "False"), *HERE, *map(str, args)]
            )

    return parse


def test_values_reach_both_argument_objects(parse, dense: Path):
    from tam_plugin.patches.llava_next.command_line.arguments import tam_config_from_args

    start = ("--vision_tower", "tam", "--model_name_or_path", dense)
    model_args, data_args, _ = parse(
        *start, "--tam_top_k", 1, "--tam_strides", "1,2", "--tam_task_instruction", "True", "--tam_max_bad_samples", 0.5
    )
    config = tam_config_from_args(model_args)
    assert (config.moe.top_k, config.projector.strides, config.instruction.task) == (1, (1, 2), True)
    assert config == tam_config_from_args(data_args)
    assert data_args.tam_args.tam_max_bad_samples == 0.5


def test_file_checkpoint_and_arguments_in_that_order(tmp_path: Path):
    from tam_plugin.config import TamConfig
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments, tam_config_from_args

    stored = TamConfig.from_dict({"moe": {"top_k": 3}, "vision_encoder": {"hidden_size": 8}})
    assert tam_config_from_args(TamArguments(), stored) == stored
    file = tmp_path / "tam.yaml"
    file.write_text("moe: {num_experts: 8}\n")
    config = tam_config_from_args(TamArguments(tam_config=str(file), tam_top_k=4), stored)
    assert (config.moe.num_experts, config.moe.top_k) == (8, 4)
    assert config.vision_encoder == {"hidden_size": 8}


def test_without_the_flag_the_host_parses_as_ever(parse, dense: Path):
    parsed = parse("--vision_tower", tiny.SIGLIP, "--model_name_or_path", dense)
    assert len(parsed) == 3
    assert not parsed[0].tam_args.given()


def test_other_parsers_stay_as_they_are(llava_train: Path):
    from dataclasses import dataclass

    from transformers import HfArgumentParser

    @dataclass
    class Own:
        vision_tower: str = "x"

    (own,) = HfArgumentParser(Own).parse_args_into_dataclasses([])
    assert not hasattr(own, "tam_args")


def test_every_argument_has_a_help_text(llava_train: Path):
    from dataclasses import fields

    from llava.train.train import ModelArguments
    from transformers import HfArgumentParser

    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments

    text = HfArgumentParser((ModelArguments,)).format_help()
    for argument in fields(TamArguments):
        assert f"--{argument.name}" in text
        assert len(argument.metadata["help"]) > 20


BAD_VALUES = [
    (("--tam-topk=2",), r"--tam_topk: there is no such argument; did you mean --tam_top_k\?"),
    (("--tam_topk", 2), r"--tam_topk: there is no such argument; did you mean --tam_top_k\?"),
    (("--tam_top_k", 9), r"--tam_top_k 9: expected a whole number from 1 to 4"),
    (("--tam_router_mode", "best"), r"--tam_router_mode 'best': expected one of top_k, random_k, lowest_k"),
    (("--tam_strides", "1;2"), r"--tam_strides '1;2': expected whole numbers separated by commas"),
    (
        ("--tam_strides", "2,3"),
        r"--tam_image_stride \(not given, so 1\): expected one of 2, 3 with --tam_strides '2,3'$",
    ),
    (("--tam_projector_gate", "hard"), r"--tam_projector_gate 'hard': expected one of resolution, soft"),
    (("--tam_policy", "/nowhere.yaml"), r"--tam_policy '/nowhere.yaml': .*cannot be read"),
    (("--tam_config", "/nowhere.yaml"), r"TAM config file '/nowhere.yaml' cannot be read"),
    (("--tam_inductor", "/nowhere"), r"no Inductor at '/nowhere'"),
    (("--tam_balance_loss_weight", -1), r"--tam_balance_loss_weight -1.0: expected a finite number >= 0"),
    (("--tam_num_experts", "four"), r"^--tam_num_experts: invalid int value: 'four'$"),
    (
        ("--mm_tuneable_parts", "mm_language_model"),
        r"--mm_tuneable_parts: there is .* did you mean --mm_tunable_parts\?",
    ),
    (("--mm_patch_merge_type", "unires"), r"--mm_patch_merge_type unires: .* expected flat or spatial_unpad"),
    (("--mm_resampler_type", "spatial_pool"), r"--mm_resampler_type spatial_pool: .* leave the argument out"),
    (("--image_grid_pinpoints", "[(336, 672)]"), r"--image_grid_pinpoints: \(336, 672\) .* the vision tower's 384"),
    (("--attn_implementation", "flash_attention_2"), r"--attn_implementation flash.*pass --attn_implementation sdpa"),
    (("--tam_skip", "gone.jsonl"), r"--tam_skip: 'gone\.jsonl' cannot be read: No such file"),
    (("--tam_max_bad_samples", 3), r"--tam_max_bad_samples 3\.0: expected a share from 0 to 1"),
]


@pytest.mark.parametrize(("args", "message"), BAD_VALUES, ids=["=".join(map(str, args)) for args, _ in BAD_VALUES])
def test_bad_values(parse, dense: Path, args: tuple, message: str):
    with pytest.raises(TamError, match=message) as raised:
        parse("--vision_tower", "tam", "--model_name_or_path", dense, *args)
    assert "\n" not in str(raised.value)


def with_config(source: Path, folder: Path, **changes) -> Path:
    """A folder with the configuration of ``source``, changed; no weights."""
    folder.mkdir()
    values = {**json.loads((source / "config.json").read_text()), **changes}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_starts_that_cannot_be_upgraded(parse, dense: Path, llm: Path, tmp_path: Path):
    clip = with_config(dense, tmp_path / "clip-qwen", mm_vision_tower="openai/clip-vit-large-patch14-336")
    for args, message in (
        ((clip,), r"vision tower is 'openai/clip-vit-large-patch14-336'; expected a SigLIP tower"),
        ((llm,), r"needs --vision_tower_pretrained"),
        ((llm, "--vision_tower_pretrained", llm), r"has model_type 'qwen2': expected 'siglip'"),
        ((llm, "--vision_tower_pretrained", "/nowhere"), r"--vision_tower_pretrained: there is no folder '/nowhere'"),
        (("/nowhere",), r"--model_name_or_path: there is no folder '/nowhere' on this machine"),
        (("no/such",), r"--model_name_or_path: .* 'no/such': there is no such folder, and no model of this name"),
    ):
        with pytest.raises(TamError, match=message) as raised:
            parse("--vision_tower", "tam", "--model_name_or_path", *args)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("start", ["dense", "tam with other experts", "tam and a projector file"])
def test_zero3_copies_nothing(llava_train: Path, dense: Path, tmp_path: Path, start: str):
    from tam_plugin import TamConfig
    from tam_plugin.patches.llava_next.command_line.arguments import TamArguments
    from tam_plugin.patches.llava_next.command_line.preflight import check_training

    tam = TamConfig(moe=MoeConfig(enabled=start != "tam with other experts"), vision_encoder={}).to_dict()
    changes = {} if start == "dense" else {"mm_vision_tower": "tam", "tam": tam}
    folder = with_config(dense, tmp_path / "start-qwen", **changes)
    args = SimpleNamespace(
        model_name_or_path=str(folder),
        tam_args=TamArguments(tam_moe=True, tam_num_experts=8 if start == "dense" else None),
        deepspeed=str(SCRIPTS / "zero3.json"),
        pretrain_mm_mlp_adapter="mm_projector.bin" if start == "tam and a projector file" else None,
    )
    message = {
        "dense": rf"\(tam upcycle {folder} DIR --num-experts 8\)",
        "tam with other experts": "the checkpoint lacks the experts .* or train under ZeRO-2",
        "tam and a projector file": "ZeRO-3 .*leave the argument out",
    }[start]
    with pytest.raises(ConfigError, match=message):
        check_training(args)
    args.deepspeed = str(SCRIPTS / "zero2_offload.json")
    check_training(args)


def test_language_models_that_know_no_videos(parse, dense: Path, tmp_path: Path):
    mistral = with_config(dense, tmp_path / "mistral", model_type="llava_mistral")
    with pytest.raises(TamError, match="is a mistral model, whose class in LLaVA-NeXT takes still images only"):
        parse("--vision_tower", "tam", "--model_name_or_path", mistral)


def test_tam_arguments_without_the_tower(parse, dense: Path):
    with pytest.raises(ConfigError, match=r"--tam_top_k needs --vision_tower tam; --vision_tower is 'google/siglip"):
        parse("--vision_tower", tiny.SIGLIP, "--model_name_or_path", dense, "--tam_top_k", 1)


def test_the_hosts_train_refuses_before_weights(llava_train: Path, dense: Path, hub: Path, tmp_path: Path, monkeypatch):
    from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM
    from llava.train.train import train

    def fail(*args, **kwargs):
        raise AssertionError("weights were read before the error")

    monkeypatch.setattr(LlavaQwenForCausalLM, "from_pretrained", fail)
    data = tiny.TrainingSet(tmp_path / "a.json", tmp_path / "a.yaml", tmp_path)
    args = tiny.train_args(dense, data, tmp_path / "out", 1, vision_tower="tam", tam_num_experts=1)
    monkeypatch.setattr(sys, "argv", ["train_mem.py", *args])
    with (
        tiny.hub_cache(hub),
        pytest.raises(ConfigError, match=r"--tam_top_k \(not given, so 2\): expected .* with --tam_num_experts 1$"),
    ):
        train()
