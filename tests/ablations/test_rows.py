"""The ablation rows on a tiny model: where they must differ and where they must not."""

from __future__ import annotations

import json

import pytest
import torch

from tam_plugin import TamConfig, TaskType
from tam_plugin.cli.main import main
from tam_plugin.errors import ConfigError, InputError
from tam_plugin.eval.ablations import ROWS, apply_to_model, configured, find
from tam_plugin.eval.ablations.table import run_row, table
from tam_plugin.eval.ablations.tiny import TinyModels, cases
from tam_plugin.training.recipe import STAGE2_ORDERS
from tam_plugin.vision import moe_layers, route_by_task


@pytest.fixture(scope="module")
def rows(sample_clip):
    """The whole table, by row name."""
    return {row["name"]: row for row in table(str(sample_clip))}


SAME = [
    {"tab3a_none", "tab3e_none", "tab9_none"},
    # A tiny model is not trained: what differs from these by training alone computes the same.
    {
        "tab3a_both", "tab3b_stage1", "tab3b_llm", "tab3b_projector", "tab3b_tower_projector", "tab3c_stage2",
        "tab3d_stage2", "tab3e_dfr",
    },
    {"tab3e_moe", "tab9_top2of4"},
    {"tab3e_both", "tab10_normal", "tab11_normal"},
]  # fmt: skip


@pytest.mark.slow
def test_rows_are_equal_where_the_papers_are_and_nowhere_else(rows):
    assert list(rows) == list(ROWS)
    groups: dict[str, set[str]] = {}
    for name, row in rows.items():
        groups.setdefault(row["output"], set()).add(name)
    assert sorted(map(sorted, (g for g in groups.values() if len(g) > 1))) == sorted(map(sorted, SAME))
    for group in SAME:
        assert len({(rows[name]["visual_tokens"], rows[name]["flops"]) for name in group}) == 1
        assert [rows[name]["same_as"] for name in rows if name in group] == [None] + [
            next(name for name in rows if name in group)
        ] * (len(group) - 1)


@pytest.mark.slow
def test_tokens_and_operations_follow_the_settings(rows):
    for row in rows.values():
        assert row["num_frames"] == 64 if row["settings"]["policy"] == "fixed:64:2" else row["num_frames"] < 64
    one, two, eight, none = (rows[f"tab9_{name}"]["flops"] for name in ("top1of4", "top2of4", "top2of8", "none"))
    assert none < one < two < eight
    # A further expert is an MLP of 32 × 64 a patch, in 2 layers: 64 frames of 25 patches. So is a gate of 32 × E.
    assert two - one == 64 * 25 * 2 * (2 * 2 * 32 * 64)
    assert eight - two == 64 * 25 * 2 * (2 * 32 * 4)
    assert one - none == 64 * 25 * 2 * (2 * 32 * 4)
    same = [rows[name]["flops"] for name in ("tab10_normal", "tab10_random", "tab10_lowest", "tab11_swap")]
    assert len(set(same)) == 1
    assert rows["tab3a_dfr"]["visual_tokens"] == rows["tab3a_both"]["visual_tokens"]
    assert rows["tab3a_dfr"]["flops"] < rows["tab3a_both"]["flops"]  # the instruction is text


@pytest.mark.parametrize("name", ["tab10_random", "tab11_random"])
def test_draws_repeat_with_their_seed_and_leave_torchs_own_alone(name, rows, sample_clip):
    asked = cases(str(sample_clip))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = run_row(ROWS[name], TinyModels(0), asked)
    assert again["output"] == rows[name]["output"]
    assert torch.equal(torch.get_rng_state(), before)
    models = TinyModels(0)
    models.draws = 1
    assert run_row(ROWS[name], models, asked)["output"] != rows[name]["output"]


@pytest.mark.parametrize("name", ["tab10_normal", "tab10_random", "tab10_lowest", "tab11_random", "tab11_swap"])
def test_a_loaded_tam_model_becomes_the_row(name, rows, sample_clip):
    models = TinyModels(0)
    trained = models.build(TamConfig())
    apply_to_model(ROWS[name], trained)
    assert trained.config.tam_config == ROWS[name].tam(TamConfig())
    assert run_row(ROWS[name], models, cases(str(sample_clip)), trained)["output"] == rows[name]["output"]


def test_hard_gate_by_task_is_that_expert_alone():
    model = TinyModels(0).build(find("tab3c_hard_task").tam(TamConfig()))
    tower = model.model.vision_tower
    layer = next(moe_layers(tower))
    pixels = torch.randn(5, 25, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), route_by_task(layer, [TaskType(2), TaskType(7)], [2, 3]):
        found = torch.cat([layer(pixels[:1]), layer(pixels[1:])])  # in two calls
        for frames, expert in ((slice(0, 2), 1), (slice(2, 5), 2)):  # type 7 is the third again of four
            fc1, fc2 = layer.to_dense(expert)
            torch.testing.assert_close(found[frames], fc2(layer.experts.activation_fn(fc1(pixels[frames]))))
    with torch.inference_mode(), pytest.raises(ConfigError, match="5 frames were given, the task of 0 is known"):
        layer(pixels)
    lost = pytest.raises(ConfigError, match="1 of 6 frames never reached")
    with torch.inference_mode(), lost, route_by_task(layer, [TaskType(1)], [6]):
        layer(pixels)
    unknown = pytest.raises(InputError, match="video 0 has no task type")
    with torch.inference_mode(), unknown, route_by_task(layer, [None], [5]):
        pass
    with pytest.raises(ConfigError, match="is for inference"), route_by_task(layer, [TaskType(1)], [5]):
        layer(pixels)


@pytest.mark.parametrize(
    ("name", "sections", "message"),
    [
        ("tab9_top2of8", {}, "needs an encoder with 8 experts; this checkpoint has an encoder with 4 experts"),
        ("tab3a_none", {}, "needs an encoder without experts; this checkpoint has an encoder with 4 experts"),
        (
            "tab9_top2of4",
            {"moe": {"num_experts": 4}},
            "needs a single projector; this checkpoint has one projector per stride",
        ),
        (
            "tab3d_soft_2of8",
            {"moe": {"enabled": False}},
            "needs a soft mixture of 8 projectors; this checkpoint has one",
        ),
    ],
)
def test_weights_of_another_structure_are_refused(name, sections, message):
    with pytest.raises(ConfigError, match=message) as raised:
        configured(ROWS[name], TamConfig.from_dict(sections))
    assert name in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="needs"):
        configured(ROWS["tab10_lowest"], None)
    assert configured(ROWS["tab3a_none"], None) is None


def test_orders_of_stage_2_are_those_of_the_script():
    named = [row.training.split()[0].partition("=")[2] for row in ROWS.values() if row.training]
    assert sorted(named) == sorted(STAGE2_ORDERS)


def test_command(capsys):
    assert main(["eval", "ablations", "tab11_swap", "tab10_normal", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in values["rows"]] == ["tab11_swap", "tab10_normal"]
    assert main(["eval", "ablations", "tab12"]) == 2
    error = capsys.readouterr().err
    assert "ablation 'tab12': expected one of tab3a_none, tab3a_dfr" in error and error.count("\n") == 1
    assert main(["eval", "ablations", "tab3a_none", "--video", "none.mp4"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
