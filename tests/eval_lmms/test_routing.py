"""``routing=FILE``: the tokens of each request's frames by expert, whatever it is computed together with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tam_plugin import TaskType
from tam_plugin.deciding.instruction import task_instruction
from tam_plugin.errors import ConfigError
from tam_plugin.eval.lmms.sample_log import read_log
from tests.eval_lmms.test_models import make
from tests.extension.material import LABEL, LINE, NINTH, SEVENTH, extended_inductor

pytestmark = pytest.mark.usefixtures("lmms_eval")


@pytest.fixture(params=["onevision", "llava_tam"])
def checkpoint(request):
    """Kind and folder of each host's."""
    return request.param, request.getfixturevalue(request.param)


def test_counts_of_a_request(checkpoint, videos, instances, tmp_path):
    rows = [videos[0], {**videos[1], "video": str(tmp_path / "none.mp4")}, *videos[2:]]
    found, logged = {}, {}
    for name, batch, beams in (("single", 1, 1), ("batch", 3, 1), ("beams", 2, 3)):
        log, routing = tmp_path / f"{name}.log.jsonl", tmp_path / f"{name}.jsonl"
        model = make(*checkpoint, rows, batch_size=batch, log=log, routing=routing)
        model.generate_until(instances(rows, num_beams=beams))
        found[name] = {record["doc_id"]: record for record in read_log(routing)}
        logged[name] = {r["doc_id"]: r for r in read_log(log) if r["error"] is None}
    side = 7 if checkpoint[0] == "llava_tam" else model.host_model.config.token_layout.grid
    for name, records in found.items():
        assert records.keys() == logged[name].keys() == {0, 2, 3}
        for row, record in records.items():
            counts = torch.tensor(record["counts"])
            times = (
                3 if name == "beams" and checkpoint[0] == "onevision" else 1
            )  # this host computes each beam's frames
            assert (counts.sum(dim=1) == times * logged[name][row]["frames"] * side**2 * 2).all()
            assert record["task_type"] == logged[name][row]["task_type"]
            assert record["length_class"] == "short"
            alone = torch.tensor(found["single"][row]["counts"])
            assert (counts - times * alone).abs().sum() <= 0.01 * counts.sum()  # ties may round otherwise
    assert found["single"][0]["counts"] != found["single"][2]["counts"]


def test_a_ninth_task_type_is_named_in_prompt_and_logs(checkpoint, videos, instances, tmp_path):
    from tam_plugin.eval.lmms.requests import read_request

    rows = [{**videos[2], "question": question, "options": None} for question in (NINTH, SEVENTH)]
    log, routing = tmp_path / "log.jsonl", tmp_path / "routing.jsonl"
    inductor = extended_inductor(tmp_path)
    model = make(*checkpoint, rows, log=log, routing=routing, inductor=inductor, task_instruction=True)
    turns = [model.decider.decide(read_request(one, model.task_dict), 5).row.turn for one in instances(rows)]
    assert [LINE in turn for turn in turns] == [True, False]
    assert task_instruction(TaskType.REASONING) in turns[1]
    model.generate_until(instances(rows))
    ninth, seventh = read_log(log)
    assert (ninth["task_type"], ninth["extension"]) == (LABEL, LABEL)
    assert ninth["stride"] in (3, 4) and 0.5 < ninth["confidence"] <= 1
    assert (seventh["task_type"], seventh["extension"]) == (TaskType.REASONING.label, None)
    assert [record["task_type"] for record in read_log(routing)] == [LABEL, TaskType.REASONING.label]


def test_a_resumed_run_counts_nothing_twice(onevision, videos, instances, tmp_path):
    log, routing = tmp_path / "log.jsonl", tmp_path / "routing.jsonl"
    for rows in (videos[:2], videos):
        make("onevision", onevision, rows, log=log, routing=routing).generate_until(instances(rows))
    assert len(routing.read_text().splitlines()) == len(videos) == len(read_log(routing))


def test_a_tower_without_experts_is_refused(videos, dense_and_tokenizer, tmp_path):
    from tam_plugin.eval.lmms.routing_log import RoutingLog

    tower: torch.nn.Module = dense_and_tokenizer[0].model.vision_tower
    path = Path(tmp_path / "routing.jsonl")
    with pytest.raises(ConfigError, match="this model's vision tower has no experts; leave it out"):
        RoutingLog(str(path), 0, tower)
    assert not path.exists()
