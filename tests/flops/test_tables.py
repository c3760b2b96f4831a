"""``tam flops``: its tables against the arithmetic they come from, and against what a checkpoint's tensors say."""

from __future__ import annotations

import copy
import json

import pytest

from tam_plugin import BudgetPolicy, TaskDistribution, TaskType
from tam_plugin.checkpoint import open_source
from tam_plugin.checkpoint.figures import inspect, policies
from tam_plugin.cli.main import main
from tam_plugin.cli.upcycle import find_layout
from tam_plugin.config import TamConfig
from tam_plugin.eval.flops import Conventions, from_path, from_preset, report
from tam_plugin.flops import count_flops, count_parameters
from tam_plugin.patches.onevision import upgrade_dense

LLAVA_VIDEO_7B = {
    "model_type": "llava_qwen",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "mm_vision_tower": "google/siglip-so400m-patch14-384",
    "mm_projector_type": "mlp2x_gelu",
    "mm_newline_position": "grid",
    "mm_spatial_pool_mode": "bilinear",
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def values():
    return report(from_preset("llava-video-7b"), (15, 60, 600))


def test_tab_2b_is_the_mean_over_the_task_types(values):
    subject = from_preset("llava-video-7b")
    policy, _ = policies(subject.layout, subject.tam)
    for number, seconds in enumerate((15, 60, 600)):
        base, tam, same = values["tables"]["2b"][3 * number : 3 * number + 3]
        each = [
            count_flops(subject.model, policy.budget(TaskDistribution.one_hot(task), seconds), text_tokens=128).total
            for task in TaskType
        ]
        assert tam["total_flops"] == sum(each) / 8 and tam["ratio"] == pytest.approx(
            sum(each) / 8 / base["total_flops"]
        )
        # At one budget TAM adds the second expert and the gates, and nothing else.
        added = 64 * 26 * 4 * 729 * 1152 * 4304 + 64 * 26 * 2 * 729 * 1152 * 4
        assert same["total_flops"] - base["total_flops"] == added
        assert base["paper_flops"] == 1.0844e17 and tam["paper_ratio"] == pytest.approx(1.1044, abs=1e-4)
        assert base["ours_of_paper"] * base["paper_flops"] == pytest.approx(base["total_flops"])


def test_tab_2c_is_linear_in_k(values):
    for number in range(3):
        one, two, four = values["tables"]["2c"][3 * number : 3 * number + 3]
        assert four["total_flops"] - two["total_flops"] == 2 * (two["total_flops"] - one["total_flops"])
        assert two["total_flops"] == values["tables"]["2b"][3 * number + 1]["total_flops"]
        assert [row["paper_flops"] for row in (one, two, four)] == [1.1519e17, 1.1976e17, 1.2603e17]


def test_tab_13_scales_both_models(values):
    rows = values["tables"]["13"][:6]
    totals = [row["total_flops"] for row in rows]
    assert totals[0] < totals[2] < totals[4] and totals[1] < totals[3] < totals[5]
    assert [row["num_frames"] for row in rows[::2]] == [32, 64, 128]
    assert rows[2]["ratio"] == 1.0 and rows[3]["paper_ratio"] == pytest.approx(1.97 / 1.84)
    assert [row["paper_flops"] for row in rows] == [None, None, 1.84e15, 1.97e15, None, None]


@pytest.mark.parametrize("duration_s", [0.2, 3, 30, 61, 180, 4000, 20_000])
def test_a_budget_of_once_is_the_budget(duration_s):
    policy = BudgetPolicy.from_yaml()
    for task in TaskType:
        asked = TaskDistribution.one_hot(task)
        once, twice = (policy.scaled(s).budget(asked, duration_s) for s in (1.0, 2.0))
        plain = policy.budget(asked, duration_s)
        assert once == plain
        assert plain.num_frames <= twice.num_frames <= 2 * plain.num_frames + 1


def test_the_paper_is_quoted_for_its_own_model_only():
    other = from_preset("llava-video-7b", TamConfig.from_dict({"moe": {"num_experts": 8}}))
    for subject in (other, from_preset("llava-video-72b")):
        tables = report(subject, (60,))["tables"]
        assert all(row["paper_flops"] is None for name in ("2b", "2c", "13") for row in tables[name])


@pytest.mark.parametrize("kind", ["dense", "tam"])
def test_a_checkpoint_by_configuration_and_by_tensors(dense_and_tokenizer, tmp_path, kind):
    model = copy.deepcopy(dense_and_tokenizer[0])
    if kind == "tam":
        settings = {"moe": {"num_experts": 8}, "projector": {"gate": "soft", "pool_order": "before_projector"}}
        model = upgrade_dense(model, TamConfig.from_dict(settings))
    model.save_pretrained(tmp_path)
    source = open_source(tmp_path)
    inspected = inspect(source, find_layout(source), TamConfig(), duration_s=600)
    source.close()
    subject = from_path(tmp_path)
    assert subject.model == from_path(tmp_path / "config.json").model
    parameters = count_parameters(subject.model)
    assert {part: parameters[part] for part in inspected["parameters"]} == inspected["parameters"]
    rows = report(subject, (600,), Conventions(text_tokens=0))["tables"]["tasks"]
    assert [row["total_flops"] for row in rows] == [row["total_flops"] for row in inspected["rows"]]


def test_a_llava_next_configuration_has_the_preset_s_sizes(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAVA_VIDEO_7B))
    assert from_path(tmp_path).model == from_preset("llava-video-7b").model
    assert report(from_path(tmp_path), (60,))["tables"] != {}


def test_the_command(capsys):
    assert main(["flops", "--duration", "60", "--new-tokens", "16", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["conventions"]["new_tokens"] == 16 and values["parameters"]["tam"]["all"]["total"] == 8_855_317_632
    assert main(["flops", "--duration", "60"]) == 0
    out = capsys.readouterr().out
    assert all(task.label in out for task in TaskType)
    assert all(words in out for words in ("Tab. 2b", "Tab. 2c", "Tab. 13", "1.0844e+17", "8,855,317,632", "7.8B"))


def with_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**LLAVA_VIDEO_7B, **changes}))
    return "--model", str(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "gpt"), "preset 'gpt': expected one of llava-video-7b"),
        (("--duration", "0"), "duration_s = 0.0"),
        (("--duration", "nan"), "duration_s = nan"),
        (("--duration", "soon"), "'soon'"),
        (("--new-tokens", "0"), "new_tokens = 0"),
        (("--text-tokens", "-1"), "text_tokens = -1"),
        (("--text-tokens", "9" * 400), "text_tokens"),
        (("--attention", "flash"), "'flash'"),
        (("--config", "absent.yaml"), "absent.yaml"),
        (("--model", "absent"), "'absent' does not exist"),
        (("--model", "absent", "--preset", "llava-video-7b"), "not allowed"),
        ({"mm_vision_tower": None, "model_type": "llava"}, "mm_vision_tower"),
        ({"model_type": "llava_mpt"}, "a mpt model"),
        ({"mm_projector_type": "pooler"}, "mm_projector_type = 'pooler'"),
        ({"num_attention_heads": "many"}, "num_attention_heads = 'many'"),
        ({"hidden_size": None}, "hidden_size = None"),
        ({"num_key_value_heads": -4}, "num_key_value_heads = -4"),
    ],
)
def test_bad_input(arguments, words, tmp_path, capsys):
    argv = with_config(tmp_path, **arguments) if isinstance(arguments, dict) else arguments
    try:
        code = main(["flops", *argv])
    except SystemExit as stopped:
        code = stopped.code
    streams = capsys.readouterr()
    assert code == 2 and streams.out == ""
    assert words in streams.err and streams.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"model_type": "llava_onevision"}', '{"model_type": "bert"}'])
def test_files_that_are_no_configuration(text, tmp_path, capsys):
    (tmp_path / "config.json").write_text(text)
    assert main(["flops", "--model", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert str(tmp_path) in err and err.count("\n") == 1


def test_sizes_of_the_wrong_type_in_a_onevision_configuration(dense_and_tokenizer, tmp_path, capsys):
    values = dense_and_tokenizer[0].config.to_dict()
    values["text_config"]["num_hidden_layers"] = "many"
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert main(["flops", "--model", str(tmp_path)]) == 2
    assert "num_hidden_layers" in capsys.readouterr().err
