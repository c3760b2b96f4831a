"""A checkpoint whose experts go by task type answers with the expert of the question's type."""

from __future__ import annotations

import json

import pytest
import torch

from tam_plugin import BudgetPolicy, TaskType, sample_frames
from tam_plugin.cli.main import main
from tam_plugin.errors import InputError
from tam_plugin.patches.onevision import VideoAssistant, load
from tam_plugin.vision import moe_layers

EXPERTS = 4
QUESTIONS = {
    "What word is printed on the sign?": TaskType.OCR_CROSS_MODAL,
    "Why does the square move?": TaskType.REASONING,
}


@pytest.fixture(scope="module")
def checkpoints(dense_and_tokenizer, tmp_path_factory):
    """Folders: of the model, and of one model an expert, in which every expert is that one."""
    import copy

    from tam_plugin import TamConfig
    from tam_plugin.patches.onevision import upgrade_dense

    moe = {"num_experts": EXPERTS, "top_k": 1, "router_mode": "by_task"}
    model = upgrade_dense(copy.deepcopy(dense_and_tokenizer[0]), TamConfig.from_dict({"moe": moe}))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".mlp." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    folders = [save(model, dense_and_tokenizer[1], tmp_path_factory.mktemp("by_task"))]
    for expert in range(EXPERTS):
        alike = copy.deepcopy(model)
        with torch.no_grad():
            for layer in moe_layers(alike):
                for parameter in layer.experts.parameters():
                    parameter.copy_(parameter[expert].clone().expand_as(parameter))
        folders.append(save(alike, dense_and_tokenizer[1], tmp_path_factory.mktemp("alike")))
    return folders


def save(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(capsys, clip, model, query):
    capsys.readouterr()
    argv = ["ask", str(clip), "--query", query, "--model", str(model), "--device", "cpu", "--max-new-tokens", "8"]
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("query", "task"), QUESTIONS.items())
def test_the_question_takes_the_expert_of_its_type(query, task, checkpoints, capsys, sample_clip):
    values, *alone = (ask(capsys, sample_clip, folder, query) for folder in checkpoints)
    assert values["task"] == task.label
    answers = [other["answer"] for other in alone]
    assert len(set(answers)) == EXPERTS  # else the next line says nothing
    assert values["answer"] == answers[(task.index - 1) % EXPERTS]


def test_a_budget_without_a_type_is_refused_and_leaves_nothing_behind(checkpoints, capsys, sample_clip):
    assistant = VideoAssistant(load(str(checkpoints[0]), device="cpu"))
    policy = BudgetPolicy.fixed(4, 2, assistant.config.token_layout)
    budget = policy.budget(None, 17.0)
    video = sample_frames(sample_clip, budget)
    with pytest.raises(InputError, match="video 0 has no task type: router_mode by_task needs the Inductor") as raised:
        assistant.answer(video, "Why?", budget, max_new_tokens=2)
    assert "\n" not in str(raised.value)
    assert all(layer._frame_experts is None for layer in moe_layers(assistant.loaded.model))
