"""``ablation=ROW`` among the model arguments: in the log, in the cache's key, in the answers."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tam_plugin import TamConfig, TaskType
from tam_plugin.errors import ConfigError
from tam_plugin.eval.ablations import ROWS
from tam_plugin.eval.lmms.sample_log import read_log
from tam_plugin.eval.lmms.settings import Settings
from tam_plugin.vision import moe_layers
from tests.eval_lmms.test_models import make, texts


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ablation": "tab12_all"}, "ablation 'tab12_all': expected one of tab3a_none, tab3a_dfr, .*, tab11_swap"),
        ({"ablation": "tab3a_none", "policy": "fixed:8:2"}, "policy = 'fixed:8:2': expected nothing beside ablation="),
        (
            {"ablation": "tab10_normal", "policy": "fixed:8:2"},
            "policy = 'fixed:8:2': expected nothing beside ablation=",
        ),
        ({"ablation": "tab3a_dfr", "time_instruction": True}, "time_instruction = True: expected nothing beside"),
        ({"ablation": "tab10_random", "batch_size": 2}, "batch_size = 2: expected 1 with ablation=tab10_random"),
        ({"ablation": "tab10_random", "ablation_seed": "x"}, "ablation_seed = 'x': expected a whole number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message) as raised:
        Settings.from_arguments({"pretrained": "x", **arguments})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ROWS)
def test_policy_and_instruction_are_the_rows(name):
    settings = Settings.from_arguments({"pretrained": "x", "ablation": name})
    row = ROWS[name]
    assert (settings.policy is None) == row.dfr
    assert settings.time_instruction == settings.task_instruction == row.instruction
    other = Settings.from_arguments({"pretrained": "x", "policy": "my.yaml", "ablation": "tab10_normal"})
    assert other.policy == "my.yaml"


@pytest.fixture(params=["onevision", "llava_tam"])
def checkpoint(request, lmms_eval):
    """Kind and folder of each host's."""
    return request.param, request.getfixturevalue(request.param)


def test_rows_change_losses_logs_and_keys(checkpoint, videos, instances, tmp_path):
    def run(name, rows=videos, **more):
        log = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
        arguments = {} if name is None else {"ablation": name}
        model = make(*checkpoint, videos, log=log, **arguments, **more)
        losses = [loss for loss, _ in texts(model.loglikelihood(instances(rows, "red")))]
        assert {record["ablation"] for record in read_log(log)} == {name}
        return losses, model.cache_name, model.fingerprint

    found = {name: run(name) for name in ("tab10_normal", "tab10_lowest", "tab10_random", "tab11_swap", "tab11_random")}
    assert len({tuple(losses) for losses, _, _ in found.values()}) == len(found)
    assert len({key for _, key, _ in found.values()}) == len({str(f) for _, _, f in found.values()}) == len(found)
    assert "ablation" not in run(None, time_instruction=True)[2]
    for name in ("tab10_random", "tab11_random"):
        again, key, _ = run(name)
        assert (again, key) == found[name][:2]
        assert run(name, videos[:1])[0] == again[:1]
        other, key, _ = run(name, ablation_seed=1)
        assert other != again and key != found[name][1]


def test_weights_of_another_structure_stop_at_once(checkpoint, videos):
    with pytest.raises(ConfigError, match="needs an encoder without experts; this checkpoint has an encoder with 4"):
        make(*checkpoint, videos, ablation="tab3a_none")


def test_a_dense_checkpoint_takes_the_rows_structure(dense_and_tokenizer, lmms_eval, videos, instances, tmp_path):
    for part in dense_and_tokenizer:
        part.save_pretrained(tmp_path / "dense")
    for name in ("tab3a_none", "tab3c_hard_task", "tab3d_soft_2of8", "tab9_top2of8"):
        log = tmp_path / f"{name}.jsonl"
        model = make("onevision", tmp_path / "dense", videos, ablation=name, log=log)
        assert model.host_model.config.tam_config == ROWS[name].tam(TamConfig())
        model.loglikelihood(instances(videos[:2], "red"))
        records = read_log(log)
        assert [record["error"] for record in records] == [None, None]
        if name == "tab9_top2of8":
            assert {record["stride"] for record in records} == {2}


def test_a_checkpoint_whose_experts_go_by_task_needs_no_row(checkpoint, videos, instances, tmp_path):
    kind, source = checkpoint
    folder, log = tmp_path / source.name, tmp_path / "log.jsonl"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["tam"]["moe"].update(top_k=1, router_mode="by_task")
    (folder / "config.json").write_text(json.dumps(config))

    def losses(expert=None, **arguments):
        model = make(kind, folder, videos, **arguments)
        with torch.no_grad():
            for layer in moe_layers(model.host_model.model) if expert is not None else ():
                for parameter in layer.experts.parameters():
                    parameter.copy_(parameter[expert].clone().expand_as(parameter))
        return [loss for loss, _ in texts(model.loglikelihood(instances(videos, "red")))]

    found = losses(log=log)
    alone = [losses(expert) for expert in range(4)]  # every expert is this one
    types = [TaskType.from_label(record["task_type"]) for record in read_log(log)]
    assert len({task.index % 4 for task in types}) > 1
    for row, task in enumerate(types):
        assert len({one[row] for one in alone}) == 4
        assert found[row] == pytest.approx(alone[(task.index - 1) % 4][row], rel=1e-5)
