"""A ninth task type: taught to tiny checkpoints of both kinds, and what the budget makes of it."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tam_plugin import BudgetPolicy, TamConfig, TaskDistribution
from tam_plugin.budget import TokenLayout
from tam_plugin.cli.main import main
from tam_plugin.errors import ConfigError, InputError, TamNotice
from tam_plugin.inductor import Inductor
from tam_plugin.inductor.finetuning.definition import check_new, read_definition
from tam_plugin.inductor.finetuning.extend import compare, extend, predictions
from tam_plugin.inductor.finetuning.lora import LoraOptions
from tam_plugin.inductor.finetuning.options import Stage1Options
from tam_plugin.inductor.finetuning.rows import TASK_LABELS, read_rows
from tam_plugin.inductor.finetuning.stage1 import train
from tam_plugin.taxonomy import TaskExtension

from .tiny import WORDS, compact_base, make_base, question, write_data

LABEL = "Endless Videos"
RULE = {"frames_per_second": 0.5, "strides": [3, 4], "min_frames": [[0, 5]], "max_frames": [[0, 17]]}
OPTIONS = LoraOptions(epochs=6, batch_size=16, learning_rate=1e-2, head_learning_rate=1e-2, rank=4, alpha=8)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_data(folder / "replay.jsonl", range(1, 9), 20, seed=1)
    write_data(folder / "samples.jsonl", {9: LABEL}, 60, seed=2)
    write_data(folder / "eval.jsonl", range(1, 10), 8, seed=3)
    (folder / "task.yaml").write_text(yaml.safe_dump({"label": LABEL, "description": "No end.", "policy": RULE}))
    return folder


@pytest.fixture(scope="module", params=["compact", "llama"])
def base(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "compact":
        return compact_base(folder / "inductor")
    plain = make_base(folder / "plain", "llama")
    data = write_data(folder / "data.jsonl", range(1, 9), 30)
    options = {"base": str(plain), "data": (str(data),), "epochs": 8, "learning_rate": 1e-2, "batch_size": 16}
    train(Stage1Options(**options, use_duration=False, cpu=True), folder / "inductor")
    return folder / "inductor"


@pytest.fixture(scope="module")
def extended(base: Path, files: Path) -> Path:
    out = base.parent / "extended"
    figures, table = extend(
        str(base),
        read_definition(files / "task.yaml"),
        [str(files / "samples.jsonl")],
        out,
        replay=[str(files / "replay.jsonl")],
        options=OPTIONS,
    )
    assert table is None and (figures["rows"], figures["new_rows"], figures["held_out_rows"]) == (198, 54, 22)
    assert figures["steps"] == 6 * 13 and figures["new_recall"] == 1.0
    return out


def test_the_new_type_is_learned_and_the_old_ones_hold(base: Path, extended: Path, files: Path) -> None:
    before, after = Inductor.from_pretrained(base), Inductor.from_pretrained(extended)
    rows = read_rows([files / "eval.jsonl"], (*TASK_LABELS, LABEL))
    truth = [row.label for row in rows]
    old = [i for i, label in enumerate(truth) if label < 9]
    was, now = predictions(before, rows), predictions(after, rows)
    assert [was[i] for i in old] == [truth[i] for i in old] and now == truth
    assert after.temperature >= before.temperature and after.use_options == before.use_options
    assert [e.label for e in after.extensions] == [LABEL] == list(after.extra_labels)
    found = after.classify(f"what is {WORDS[8]} in the video")
    assert found.extension is not None and found.extension.rule == RULE and 0.5 < found.extension_probability <= 1
    assert len(found.probabilities) == 8 and sum(found.probabilities) == pytest.approx(1)
    assert after.classify("show me why").extension is None
    table = compare(before, after, rows, (*TASK_LABELS, LABEL)).splitlines()
    assert table[2] == "| the eight task types, accuracy | 64 | 100.0 % | 100.0 % |"
    assert table[-2:] == [
        f"| {LABEL}, recall | 8 | – | 100.0 % |",
        f"| the eight, taken for {LABEL} | 64 | – | 0.0 % |",
    ]


def test_probability_is_the_softmax_over_nine(extended: Path) -> None:
    inductor = Inductor.from_pretrained(extended)
    text = f"what is {WORDS[8]}"
    logits = inductor._classifier.logits(inductor.token_ids([text]))[0].double() / inductor.temperature
    found = inductor.classify(text)
    assert found.extension is not None
    assert found.extension_probability == pytest.approx(logits.softmax(0)[8].item(), abs=1e-6)
    assert found.probabilities == pytest.approx(logits[:8].softmax(0).tolist(), abs=1e-6)


@pytest.mark.slow
def test_a_fresh_process_plans_by_the_rule(extended: Path, sample_clip: Path) -> None:
    query = f"what is {WORDS[8]} in the video"
    command = [sys.executable, "-m", "tam_plugin.cli.main", "plan", str(sample_clip), "--query", query]
    done = subprocess.run(
        [*command, "--inductor", str(extended), "--json"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    values = json.loads(done.stdout)
    assert values["extension"] == LABEL and values["pool_stride"] == 3
    assert values["num_frames"] == min(17, max(5, int(0.5 * values["duration_s"] + 0.5)))


def test_the_text_report_names_the_extension(extended: Path, sample_clip: Path, capsys) -> None:
    plan = ["plan", str(sample_clip), "--inductor", TamConfig(inductor=str(extended)).inductor, "--query"]
    assert main([*plan, f"what is {WORDS[8]}"]) == 0
    assert f"extension   {LABEL}: its rule decides" in capsys.readouterr().out
    assert main([*plan, "show me why"]) == 0
    assert "extension" not in capsys.readouterr().out


def test_a_tenth_type_beside_the_ninth(extended: Path, files: Path, tmp_path: Path) -> None:
    write_data(tmp_path / "mixed.jsonl", {**{i: i for i in range(1, 9)}, 9: LABEL}, 12, seed=5)
    rng = random.Random(0)
    lines = [json.dumps({"question": f"{question(2, rng)} length", "label": 10}) + "\n" for _ in range(40)]
    (tmp_path / "tenth.jsonl").write_text("".join(lines))
    tenth = TaskExtension(label="Lengths", group="frames")
    replay = [str(tmp_path / "mixed.jsonl")]
    # Its samples are questions of type 2 with one word more, which the base's own opinion speaks against.
    options = dataclasses.replace(OPTIONS, keep=0.0)
    extend(str(extended), tenth, [str(tmp_path / "tenth.jsonl")], tmp_path / "out", replay=replay, options=options)
    inductor = Inductor.from_pretrained(tmp_path / "out")
    extensions = [(e.index, e.label, e.group) for e in inductor.extensions]
    assert extensions == [(9, LABEL, None), (10, "Lengths", "frames")]
    found = inductor.classify_batch([f"is {WORDS[8]} the dog", f"{question(2, rng)} length", "show me why"])
    assert [f.extension.label if f.extension else f.task.index for f in found] == [LABEL, "Lengths", 7]


def test_without_replay_it_is_said(base: Path, files: Path, tmp_path: Path) -> None:
    extension = TaskExtension(label=LABEL, group="frames")
    with pytest.warns(TamNotice, match="without --replay nothing reminds"):
        extend(str(base), extension, [str(files / "samples.jsonl")], tmp_path / "out", options=LoraOptions(epochs=1))


def test_the_command_prints_figures_and_a_table(base: Path, files: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(files)
    argv = ["inductor", "extend", "--base", str(base), "--definition", "task.yaml", "--data", "samples.jsonl"]
    argv += ["--replay", "replay.jsonl", "--out", str(tmp_path / "out"), "--eval", "eval.jsonl", "--epochs", "1"]
    assert main(argv) == 0
    first, blank, head, *_ = capsys.readouterr().out.splitlines()
    assert json.loads(first)["label"] == LABEL and blank == "" and head == "| | rows | before | after |"
    assert main(argv) == 2 and "finished Inductor" in capsys.readouterr().err
    assert main([*argv, "--overwrite"]) == 0 and not list(tmp_path.glob(".*"))


def distribution(extension: TaskExtension | None, probability: float = 1.0) -> TaskDistribution:
    return TaskDistribution((0.3, *[0.1] * 7), extension, probability)


def test_the_rule_decides_whatever_mode_and_confidence() -> None:
    extension = TaskExtension(label=LABEL, rule=RULE)
    for mode in ("hard", "soft"):
        policy = BudgetPolicy.from_dict({**BudgetPolicy.from_yaml().to_dict(), "mode": mode})
        found = policy.budget(distribution(extension, 0.2), 20.0)
        assert (found.num_frames, found.pool_stride, found.fallback) == (10, 3, None)  # 0.5 a second for 20 s
        assert (found.extension, found.confidence, found.task.index) == (LABEL, 0.2, 1)
        assert found.decided_task is extension
        assert policy.budget(distribution(extension), 3600.0).num_frames == 17
        assert policy.budget(distribution(extension), 20.0, video_frames=3).num_frames == 3
    plain = policy.budget(distribution(None), 20.0)
    assert plain.extension is None and "confidence 0.300 is under 0.35" in plain.fallback
    assert plain.decided_task is plain.task


@pytest.mark.parametrize("group", ["resolution", "balanced", "frames"])
def test_a_group_decides_as_for_its_own_tasks(group: str) -> None:
    policy = BudgetPolicy.from_yaml()
    task = next(task for task, name in policy.tasks.items() if name == group)
    for duration_s in (5.0, 100.0, 4000.0):
        found = policy.budget(distribution(TaskExtension(label=LABEL, group=group)), duration_s)
        expected = policy.budget(TaskDistribution.one_hot(task), duration_s)
        assert (found.num_frames, found.pool_stride) == (expected.num_frames, expected.pool_stride)


def test_a_models_strides_hold_for_the_rule_too() -> None:
    extension = distribution(TaskExtension(label=LABEL, rule=RULE))
    policy = BudgetPolicy.from_yaml().adapted(TokenLayout(strides=(1, 2, 4), newline_position="no_token"))
    found = policy.budget(extension, 20.0)
    assert found.pool_stride == 4
    assert list(policy.strides_of(found) or ()) == [4]  # where text makes it coarser, not any stride of the model
    with pytest.raises(ConfigError, match=r"'Endless Videos', policy.strides = \[3, 4\]: the model has projectors"):
        BudgetPolicy.from_yaml().adapted(TokenLayout(strides=(1, 2))).budget(extension, 20.0)


def test_a_fixed_policy_names_the_type_and_takes_its_own_frames() -> None:
    found = BudgetPolicy.fixed(8, 2).budget(distribution(TaskExtension(label=LABEL, group="frames"), 0.6), 20.0)
    assert (found.num_frames, found.pool_stride, found.extension, found.confidence) == (8, 2, LABEL, 0.6)


def test_distributions_are_still_values() -> None:
    one = distribution(TaskExtension(label=LABEL, rule=RULE))
    assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == one != distribution(None)
    assert len({one, distribution(None), TaskDistribution(one.probabilities)}) == 2
    with pytest.raises(InputError, match="extension must be"):
        TaskDistribution(one.probabilities, LABEL)  # type: ignore[arg-type]


def test_extra_labels_without_extensions_are_as_before(extended: Path, tmp_path: Path) -> None:
    for path in extended.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    entries = config.pop("tam_extensions")
    (tmp_path / "config.json").write_text(json.dumps(config))
    inductor, query = Inductor.from_pretrained(tmp_path), f"what is {WORDS[8]}"
    assert inductor.extra_labels == (LABEL,) and inductor.extensions == ()
    assert inductor.classify(query).extension is None
    assert inductor.classify(query).probabilities == Inductor.from_pretrained(extended).classify(query).probabilities
    for broken, said in (
        ({"a": 1}, "must be a list"),
        ([entries[0] | {"label": "Other"}], "'Other', which is not one of the labels beyond the eight"),
        ([{"label": LABEL}], "either a group or a rule"),
        ([entries[0] | {"probability": 1}], "expected a mapping of"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | {"tam_extensions": broken}))
        with pytest.raises(ConfigError, match=said):
            Inductor.from_pretrained(tmp_path)


GOOD = {"label": LABEL, "description": "No end.", "policy": {"group": "frames"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"policy": KeyError}, "policy is missing"),
        ({"label": KeyError}, "label is missing"),
        ({"colour": 1}, "unknown field 'colour'"),
        ({"label": 9}, "label = 9: expected a name"),
        ({"label": "9"}, "label = '9': expected a name"),
        ({"description": None}, "description must be text"),
        ({"policy": "frames"}, "policy = 'frames': expected group: NAME"),
        ({"policy": {"group": "many"}}, "needs group 'many'; groups holds resolution, balanced, frames"),
        ({"policy": {"group": "frames", "strides": [1]}}, "expected group alone, or a rule"),
        ({"policy": {**RULE, "strides": [4, 3]}}, "policy.strides = [4, 3]: expected ascending whole numbers"),
        ({"policy": {**RULE, "min_frames": [[0, 50]]}}, "above max_frames"),
        ({"policy": {"frames_per_second": 1}}, "policy.strides is missing"),
        ({"label": "Action recognition"}, "exists already (Action Recognition)"),
        ({"label": "OCR_CROSS_MODAL"}, "exists already (OCR and Cross-modal Alignment)"),
    ],
)
def test_bad_definitions(files: Path, tmp_path: Path, capsys, change: dict, said: str) -> None:
    values = {name: value for name, value in {**GOOD, **change}.items() if value is not KeyError}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(values))
    refused(tmp_path, files, capsys, said, "--definition", tmp_path / "task.yaml")


def refused(out: Path, files: Path, capsys, said: str, *changes: object) -> None:
    given = {"--base": ["embedded"], "--definition": [files / "task.yaml"], "--data": [files / "samples.jsonl"]}
    given |= {"--replay": [files / "replay.jsonl"], "--out": [out / "new"], changes[0]: list(changes[1:])}
    capsys.readouterr()
    argv = [str(word) for name, values in given.items() for word in (name, *values)]
    assert main(["inductor", "extend", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and said in captured.err
    assert not (out / "new").exists() and not list(out.glob(".*"))


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--data", "replay.jsonl", "no sample of the new type; expected rows with label 'Endless Videos' or 9"),
        ("--replay", "samples.jsonl", "unknown label 'Endless Videos'; expected 1-8"),
        ("--base", "absent/inductor/here", "no Inductor at"),
        ("--out", ".", "holds something that is no Inductor"),
        ("--definition", "samples.jsonl", "task definition"),
        ("--rank", "0", "--rank 0: expected a number over 0"),
    ],
)
def test_bad_arguments(files: Path, tmp_path: Path, capsys, monkeypatch, option: str, value: str, said: str) -> None:
    monkeypatch.chdir(files)
    refused(tmp_path, files, capsys, said, option, value)


def test_a_base_of_other_labels(files: Path, tmp_path: Path, capsys) -> None:
    base = make_base(tmp_path / "three", "llama", labels=["a", "b", "c"])
    refused(tmp_path, files, capsys, "needs at least 8 labels, found 3", "--base", base)


def test_a_label_of_an_earlier_extension_is_taken() -> None:
    with pytest.raises(ConfigError, match="exists already"):
        check_new("endless-videos", [*TASK_LABELS, LABEL])
    check_new("Shorter Videos", [*TASK_LABELS, LABEL])


def test_old_rows_keep_the_bases_opinion_in_their_target(tmp_path):
    from tam_plugin.inductor.finetuning.lora import remember
    from tam_plugin.inductor.finetuning.rows import cut_ids, soft_targets
    from tam_plugin.inductor.finetuning.students import load_student

    base = Inductor.from_pretrained(compact_base(tmp_path / "base"))
    student = load_student(str(tmp_path / "base"), base, LABEL)
    data = write_data(tmp_path / "rows.jsonl", (1, 5, 8), 1)
    rows = [*read_rows([str(data)], [*TASK_LABELS, LABEL])]
    ids = cut_ids(base.token_ids([row.text(use_options=True, use_duration=False) for row in rows]), 64)
    labels = soft_targets(rows, 9, label2_weight=0.3, label_smoothing=0.0)
    assert torch.equal(remember(student, rows, ids, labels, 0.0), labels)
    half = remember(student, rows, ids, labels, 0.5)
    found = base.classify_batch([row.question for row in rows])
    for row, distribution in enumerate(found):
        # The opinion is the one at temperature 1; the base's probabilities are at 1.5.
        opinion = torch.tensor(distribution.probabilities) ** base.temperature
        expected = 0.5 * labels[row, :8] + 0.5 * opinion / opinion.sum()
        torch.testing.assert_close(half[row, :8], expected, atol=1e-3, rtol=0)
    assert half[:, 8].sum() == 0 and torch.allclose(half.sum(1), torch.ones(3))
