"""A task type beyond the eight decides, and is named, wherever one of the eight is: from the question to the report."""

from __future__ import annotations

import copy
import html
import json
from pathlib import Path

import numpy as np
import pytest

from tam_plugin import BudgetPolicy, Inductor, TamConfig, TaskType, sample_frames
from tam_plugin.cli.main import main
from tam_plugin.config import InstructionConfig
from tam_plugin.deciding.instruction import longest_lines, task_instruction
from tam_plugin.errors import InputError
from tam_plugin.eval.lmms.routing_log import RoutingLog
from tam_plugin.eval.lmms.sample_log import read_log
from tam_plugin.inductor.dataset import read_queries
from tam_plugin.plans.keys import sample_key
from tam_plugin.plans.table import Plans
from tam_plugin.taxonomy import TaskDistribution, TaskExtension
from tests.eval_report.material import DECIDED, lines, record, write_run
from tests.extension.material import DESCRIPTION, LABEL, LINE, NINTH, RULE, SEVENTH, write_queries
from tests.plans.data import plan_data, row, write

EXPERTS = 4


@pytest.fixture(scope="module")
def checkpoint(dense_and_tokenizer, tmp_path_factory) -> Path:
    """A tiny model whose experts go by task type, and which is told the task type."""
    from tam_plugin.patches.onevision import upgrade_dense

    model, tokenizer = dense_and_tokenizer
    config = {"moe": {"num_experts": EXPERTS, "top_k": 1, "router_mode": "by_task"}, "instruction": {"task": True}}
    folder = tmp_path_factory.mktemp("by_task")
    upgrade_dense(copy.deepcopy(model), TamConfig.from_dict(config)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_decision(extended: Path, sample_clip: Path, capsys) -> None:
    capsys.readouterr()
    assert main(["plan", str(sample_clip), "--inductor", str(extended), "--query", NINTH, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["task"], values["extension"], values["pool_stride"]) == (LABEL, LABEL, 3)
    assert [*values["probabilities"]] == [*(task.label for task in TaskType), LABEL]
    assert sum(values["probabilities"].values()) == pytest.approx(1)
    assert max(values["probabilities"].values()) == values["probabilities"][LABEL] == values["confidence"]
    assert main(["plan", str(sample_clip), "--inductor", str(extended), "--query", SEVENTH, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["task"] == TaskType.REASONING.label and "extension" not in values
    assert len(values["probabilities"]) == 8 and sum(values["probabilities"].values()) == pytest.approx(1)


def test_prompt_and_page(extended: Path, checkpoint: Path, sample_clip: Path, tmp_path: Path, capsys) -> None:
    page = tmp_path / "page.html"
    argv = ["ask", str(sample_clip), "--inductor", str(extended), "--model", str(checkpoint), "--device", "cpu"]
    for query, line in ((NINTH, LINE), (SEVENTH, task_instruction(TaskType.REASONING))):
        assert main([*argv, "--max-new-tokens", "1", "--report", str(page), "--query", query]) == 0
        shown = html.unescape(page.read_text())
        assert f"\n{line}\n{query}" in shown.replace("\n\n", "\n")
        assert (f"<h2>Task type: {LABEL} (" in shown) == (query == NINTH)


def test_expert_and_routing_log(extended: Path, checkpoint: Path, sample_clip: Path, tmp_path: Path) -> None:
    from tam_plugin.patches.onevision import VideoAssistant

    assistant = VideoAssistant.from_pretrained(str(checkpoint), device="cpu")
    decider = assistant.decider(inductor=str(extended))
    log = RoutingLog(str(tmp_path / "routing.jsonl"), 0, assistant.vision_tower)
    for number, query in enumerate((NINTH, SEVENTH)):
        budget = decider.decide(query, 17.0).budget
        video = sample_frames(sample_clip, budget)
        asked = record(0, doc_id=number, frames=len(video), task_type=budget.decided_task.label)
        with log.listening([asked]):
            assistant.answer(video, query, budget, max_new_tokens=1)
    log.close()
    for line, (label, index) in zip(
        read_log(tmp_path / "routing.jsonl"), ((LABEL, 9), (TaskType.REASONING.label, 7)), strict=True
    ):
        assert line["task_type"] == label
        used = [[expert for expert, count in enumerate(layer) if count] for layer in line["counts"]]
        assert used == [[(index - 1) % EXPERTS]] * len(used)


@pytest.mark.slow
def test_report_of_an_evaluation(tmp_path: Path) -> None:
    """One row of the hand-made run was decided by the ninth type; logs of earlier versions named it otherwise."""
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    static = DECIDED[0][0]
    texts = {}
    for name, task_type in (("now", LABEL), ("earlier", static)):
        write_run(tmp_path / name)
        ninth = record(1, task_type=task_type, extension=LABEL, frames=40, stride=3)
        lines(tmp_path / name / "log.jsonl", [record(0), ninth])
        routed = [json.loads(line) for line in (tmp_path / name / "routing.jsonl").read_text().splitlines()]
        routed[1]["task_type"] = LABEL
        lines(tmp_path / name / "routing.jsonl", routed)
        out = tmp_path / f"{name} report"
        assert main(["report", str(tmp_path / name), "--out", str(out), "--preset", "llava-video-7b"]) == 0
        texts[name] = (out / "report.md").read_text()
        assert len(list(out.glob("*.png"))) == 6
    assert texts["now"] == texts["earlier"]
    table = [line for line in texts["now"].splitlines() if line.startswith(f"| {LABEL} ")]
    assert table == [f"| {LABEL} | 0.000 (0 of 1) |", f"| {LABEL} | 1 | 40 / 40.0 / 40 | 3: 1 |"]
    after = texts["now"].split(TaskType.OCR_CROSS_MODAL.label)[1:]
    assert all(rest.split("\n", 1)[1].startswith(f"| {LABEL} |") for rest in after)  # the eight come first
    assert f"| {static} | 1.000 (1 of 1) |" in texts["now"]


@pytest.fixture(scope="module")
def planned(extended: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plans")
    rows = [row(0, NINTH, duration=20.0), row(1, NINTH), row(2, SEVENTH, duration=20.0)]
    assert plan_data(write(folder / "data.jsonl", rows), folder / "out", "--inductor", str(extended)) == 0
    return folder / "out"


def test_plans_name_it_with_its_description(planned: Path, extended: Path, capsys) -> None:
    plans, known = Plans(planned), Inductor.from_pretrained(extended).extensions[0]
    ninth, unknown, seventh = (
        sample_key(str(n), f"{n}.mp4", f"<image>\n{q}").key for n, q in enumerate((NINTH, NINTH, SEVENTH))
    )
    found = plans.planned(ninth)
    assert found.extension == known and (known.index, known.description, known.rule) == (9, DESCRIPTION, RULE)
    assert (found.num_frames, found.stride) == (10, 3)
    later = plans.distribution(unknown, 20.0)
    assert later.decided_task == known
    assert later.decided_confidence == pytest.approx(found.confidence, abs=1e-3)
    assert plans.planned(seventh).extension is None
    assert plans.header["counts"]["histogram"] == {
        TaskType.REASONING.label: plans.header["counts"]["histogram"][TaskType.REASONING.label],
        LABEL: {"3": {"10": 1, str(BudgetPolicy.from_yaml().budget(later, None).num_frames): 1}},
    }


def test_plans_of_earlier_versions(planned: Path, tmp_path: Path) -> None:
    """Their headers hold descriptions and no indices; one that says anything else is refused."""
    for file in planned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    header = json.loads((tmp_path / "plans.json").read_text())
    (described,) = header["extensions"]
    assert described.pop("index") == 9
    (tmp_path / "plans.json").write_text(json.dumps(header))
    assert Plans(tmp_path).extensions == Plans(planned).extensions
    header["extensions"] = [{"label": LABEL, "group": "frames"}]
    (tmp_path / "plans.json").write_text(json.dumps(header))
    assert task_instruction(Plans(tmp_path).extensions[0]) == f"This question is about {LABEL}."
    header["extensions"] = [{**described, "colour": "red"}]
    (tmp_path / "plans.json").write_text(json.dumps(header))
    with pytest.raises(InputError, match=r"plans\.json holds the extension .*colour"):
        _ = Plans(tmp_path).extensions


def test_text_is_reserved_for_a_description_longer_than_the_eights() -> None:
    """Also of several lines; the hosts' prompt is one line per instruction."""
    wordy = TaskExtension(label=LABEL, group="frames", description="word " * 200 + "\nand more")
    told = InstructionConfig(time=True, task=True)
    eight, nine = longest_lines(4, told), longest_lines(4, told, [wordy])
    assert eight[0] == nine[0] and [len(eight), len(nine)] == [2, 2]
    assert eight[1] == max(map(task_instruction, TaskType), key=len)
    assert nine[1] == task_instruction(wordy) and "\n" not in nine[1]
    assert longest_lines(4, told, [TaskExtension(label=LABEL, group="frames")]) == eight


@pytest.mark.usefixtures("qwen_prompts")
@pytest.mark.parametrize("source", ["plans", "on the fly"])
def test_training_prompt_is_that_of_inference(extended: Path, tmp_path: Path, source: str) -> None:
    from tests.llava.budget_data import host_dataset, sample, tam, text_of, write_clip
    from tests.llava.budget_model import GRID, tam_model

    write_clip(tmp_path / "even.mp4", duration_s=6)
    rows = [sample("even.mp4", NINTH), sample("even.mp4", SEVENTH)]
    model = tam_model(inductor=str(extended), instruction={"task": True, "time": False})
    given = {}
    if source == "plans":
        host_dataset(tmp_path, model, rows)
        layout = ("--newline-position", "grid", "--model-max-length", "16384", "--grid", str(GRID))
        more = ("--inductor", str(extended), "--video-folder", str(tmp_path))
        assert plan_data(tmp_path / "samples.json", tmp_path / "plans", *more, layout=layout) == 0
        given["tam_plans"] = str(tmp_path / "plans")
    dataset = tam(tmp_path, rows, model, **given)
    for index, (query, line) in enumerate(((NINTH, LINE), (SEVENTH, task_instruction(TaskType.REASONING)))):
        item = dataset[index]
        assert f"\n{line}\n{query}" in text_of(dataset, item).replace("\n\n", "\n")
        modality = item["image"][0][2]
        assert modality.task.index == (9, 7)[index]


def test_inductor_eval_judges_all_nine(extended: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    asked = [(NINTH, 9), (NINTH, LABEL), (SEVENTH, 7), (SEVENTH, 9), (NINTH, 7)]
    data = write_queries(tmp_path / "asked.jsonl", asked)
    argv = ["inductor", "eval", str(data), "--inductor", str(extended), "--compare", "embedded"]
    capsys.readouterr()
    assert main([*argv, "--out", str(tmp_path / "report"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = report["files"]["asked"]
    assert np.array_equal(np.nonzero(found["confusion"]), [[6, 6, 8, 8], [6, 8, 6, 8]])
    assert (found["accuracy"], found["group_accuracy"], found["recall"][8]) == (0.6, 0.6, pytest.approx(2 / 3))
    assert [*found["cost"]] == [TaskType.REASONING.label, LABEL]
    assert f"| 9 {LABEL} | 3 |" in (tmp_path / "report" / "report.md").read_text()
    assert report["comparison"][0]["accuracy"] == 0.6 > report["comparison"][1]["accuracy"]
    with pytest.raises(InputError, match=r"labels are 1-8, got label 9"):
        read_queries(data)


def test_an_index_is_one_beyond_the_eight() -> None:
    for index in (8, 9.0, True):
        with pytest.raises(InputError, match="index must be a whole number > 8"):
            TaskExtension(label=LABEL, group="frames", index=index)  # type: ignore[arg-type]
    certain = TaskDistribution.one_hot(TaskExtension(label=LABEL, group="frames", index=12))
    assert certain.decided_task.index == 12 and certain.as_dict()[LABEL] == certain.decided_confidence == 1.0
    with pytest.raises(InputError, match="extension_probability must lie in"):
        TaskDistribution(certain.probabilities, certain.extension, 1.5)
