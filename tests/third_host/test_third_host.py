"""A third host is a folder and a row: registered, every command knows it; taken out again, none does."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from tam_plugin import sample_frames
from tam_plugin.budget import TokenLayout
from tam_plugin.cli.main import main
from tam_plugin.errors import ConfigError
from tam_plugin.patches.hosts import load_assistant, register_host, unregister_host

from .host import Glance
from .model import CONFIG, write_checkpoint


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A dense checkpoint of the host."""
    return write_checkpoint(tmp_path_factory.mktemp("third") / "dense")


@pytest.fixture
def glance():
    """The host, registered for the length of a test."""
    register_host(Glance())
    yield
    unregister_host("glance")


def printed(capsys, *argv, codes=(0,)):
    capsys.readouterr()
    assert main([*map(str, argv), "--json"]) in codes
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def tensors(folder):
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


@pytest.mark.slow
def test_doctor_lists_it(glance, capsys):
    hosts = printed(capsys, "doctor", "--for", "evaluate", codes=(0, 1))["hosts"]
    assert list(hosts) == ["llava", "onevision", "glance"]
    assert hosts["glance"] == {"ready": True, "detail": "Glance of the tests", "remedy": None}


def test_upcycle_and_flops_use_its_layout(glance, dense, tmp_path, capsys):
    assert printed(capsys, "upcycle", dense, "--inspect")["host"] == "Glance"
    printed(capsys, "upcycle", dense, tmp_path / "tam", "--num-experts", 3)
    before, after = tensors(dense), tensors(tmp_path / "tam")
    untouched = [name for name in before if ".mlp." not in name.partition("eye.")[2] and not name.startswith("bridge.")]
    assert untouched and all(torch.equal(after[name], before[name]) for name in untouched)
    fc1 = next(name for name in before if name.endswith("layers.1.mlp.fc1.weight") and name.startswith("eye."))
    assert torch.equal(after[fc1.replace("fc1", "experts.fc1")], torch.stack([before[fc1]] * 3))
    assert torch.equal(after["bridge.stride_4.2.weight"], before["bridge.2.weight"])
    values = json.loads((tmp_path / "tam" / "config.json").read_text())
    assert values.pop("tam")["moe"]["num_experts"] == 3 and values == {**CONFIG, "model_type": "tam_glance"}

    counted = printed(capsys, "flops", "--model", tmp_path / "tam", "--duration", 60)
    assert counted["names"] == {"dense": "Glance, dense", "tam": "Glance with TAM"}
    for kind, held in (("dense", before), ("tam", after)):
        assert counted["parameters"][kind]["all"]["total"] == sum(t.numel() for t in held.values())

    printed(capsys, "upcycle", tmp_path / "tam", tmp_path / "back", "--dense", "average")
    back = tensors(tmp_path / "back")
    assert back.keys() == before.keys() and all(torch.equal(back[name], before[name]) for name in before)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == CONFIG


def test_it_is_asked_and_the_upcycled_model_answers_as_the_dense_one(glance, dense, tmp_path, sample_clip, capsys):
    printed(capsys, "upcycle", dense, tmp_path / "tam")
    budget = TokenLayout(grid=5, newline_position="one_token").budget(4, 2)
    video = sample_frames(str(sample_clip), budget)
    first, second = (load_assistant(str(folder), device="cpu") for folder in (dense, tmp_path / "tam"))
    query = "What color is the sign?"
    torch.testing.assert_close(first.logits(video, query, budget), second.logits(video, query, budget))
    asked = printed(capsys, "ask", sample_clip, "--query", query, "--model", tmp_path / "tam", "--max-new-tokens", 4)
    side = math.ceil(5 / asked["pool_stride"])
    assert asked["visual_tokens"] == asked["num_frames"] * side**2 + 1  # one newline token ends the video
    budget = TokenLayout(grid=5, newline_position="one_token").budget(asked["num_frames"], asked["pool_stride"])
    answer = first.answer(sample_frames(str(sample_clip), budget), query, budget, max_new_tokens=4)
    assert asked["answer"] == answer.text != "" and answer.visual_tokens == asked["visual_tokens"]


def test_what_it_does_not_offer_is_refused_with_the_hosts_that_do(glance, dense, tmp_path, capsys):
    capsys.readouterr()
    assert main(["merge", str(dense), str(tmp_path / "whole"), "--base", str(dense)]) == 2
    err = capsys.readouterr().err
    assert "is a Glance checkpoint" in err and "expected a LLaVA-NeXT checkpoint" in err and err.count("\n") == 1


def test_where_it_is_not_registered_every_command_says_the_same(dense, sample_clip, tmp_path, capsys):
    commands = [
        ["upcycle", dense, tmp_path / "tam"],
        ["flops", "--model", dense],
        ["merge", dense, tmp_path / "whole", "--base", dense],
        ["ask", sample_clip, "--query", "What is it?", "--model", dense],
    ]
    problems = set()
    for argv in commands:
        capsys.readouterr()
        assert main([*map(str, argv)]) == 2
        problems.add(capsys.readouterr().err.partition(": ")[2])
    (problem,) = problems
    assert problem.startswith(f"{str(dense)!r} has model_type 'glance' and no mm_vision_tower: expected ")
    assert "LLaVA-NeXT" in problem and "LlavaOnevision" in problem
    with pytest.raises(ConfigError) as refused:
        load_assistant(str(dense))
    assert str(refused.value) == problem.strip()
