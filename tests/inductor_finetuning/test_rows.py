"""Reading labelled rows, the held-out split, targets and class weights."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from tam_plugin.errors import InputError
from tam_plugin.inductor.finetuning.lora import row_weights
from tam_plugin.inductor.finetuning.rows import (
    TASK_LABELS,
    Row,
    class_weights,
    cut_ids,
    read_rows,
    soft_targets,
    split_rows,
)
from tam_plugin.inductor.finetuning.trainer import SoftTargetTrainer


def test_labels_are_numbers_or_names(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    names = [4, "4", "temporal sequence positioning", "TEMPORAL_SEQUENCE", 9, "Very-long video"]
    path.write_text("\n\n".join(json.dumps({"question": "q", "label": name, "duration_s": 0}) for name in names))
    rows = read_rows([path], (*TASK_LABELS, "very long video"))
    assert [row.label for row in rows] == [4, 4, 4, 4, 9, 9] and {row.duration_s for row in rows} == {None}
    assert rows[1].where == f"{path}, line 3"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "'{path}' is empty"),
        ("{", "{path}, line 1: expected a JSON object"),
        ("[1]", "{path}, line 1: expected a JSON object"),
        ('{"question": "Why?"}', "{path}, line 1: expected a JSON object with question and label"),
        (
            '{"question": "q", "label": 1}\n{"question": "q", "label": 9}',
            "{path}, line 2: unknown label 9; expected 1-8",
        ),
        ('{"question": "q", "label": "Colour"}', "{path}, line 1: unknown label 'Colour'"),
        ('{"question": "q", "label": true}', "unknown label True"),
        ('{"question": "q", "label": 1.0}', "unknown label 1.0"),
        ('{"question": "q", "label": 1, "label2": 12}', "unknown label 12"),
        ('{"question": " ", "label": 1}', "question must be text"),
        ('{"question": "q", "label": 1, "options": "a"}', "options must be a list"),
        ('{"question": "q", "label": 1, "duration_s": -2}', "{path}, line 1: duration_s = -2"),
        ('{"question": "q", "label": 1, "id": 7}\n{"question": "r", "label": 1, "id": "7"}', "id '7' is that of"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line)
    with pytest.raises(InputError) as caught:
        read_rows([path])
    assert said.format(path=path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_id_in_two_files_names_both(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"question": "q", "label": 1, "id": "x"}')
    with pytest.raises(InputError, match=r"b\.jsonl, line 1: id 'x' is that of .*a\.jsonl, line 1"):
        read_rows([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    with pytest.raises(InputError, match=r"missing\.jsonl"):
        read_rows([tmp_path / "missing.jsonl"])


def test_a_question_of_placeholders_names_its_line() -> None:
    with pytest.raises(InputError, match="f, line 3: the query is empty"):
        Row(question="<image>", label=1, where="f, line 3").text(use_options=True, use_duration=True)


def test_split_holds_out_a_share_of_each_label() -> None:
    rows = [Row(question=f"q{i}", label=label) for label, n in ((1, 50), (2, 21), (3, 2), (4, 1)) for i in range(n)]
    kept, held = split_rows(rows, 0.2, seed=3)
    assert Counter(row.label for row in held) == {1: 10, 2: 4, 3: 1}
    assert sorted(map(id, kept + held)) == sorted(map(id, rows))
    assert split_rows(rows, 0.2, seed=3)[1] == held != split_rows(rows, 0.2, seed=4)[1]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # 4, 1 and 1 rows: N / (C n) = 6/12, 6/3, 6/3; 1/sqrt(n) is 1/2, 1, 1 with mean (4/2 + 1 + 1) / 6 = 2/3
        ("balanced", [0.5, 2.0, 1.0, 2.0]),
        ("sqrt", [0.75, 1.5, 1.0, 1.5]),
        ("none", [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_class_weights_by_hand(mode: str, expected: list[float]) -> None:
    rows = [Row(question="q", label=label) for label in (1, 1, 1, 1, 2, 4)]
    assert class_weights(rows, 4, mode) == pytest.approx(expected)


def test_soft_targets_share_the_second_label() -> None:
    rows = [Row(question="q", label=4, label2=2), Row(question="q", label=9), Row(question="q", label=1, label2=1)]
    target = soft_targets(rows, 9, label2_weight=0.3, label_smoothing=0.09)
    assert target.sum(1).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert target[0, [3, 1, 0]].tolist() == pytest.approx([0.7 * 0.91 + 0.01, 0.3 * 0.91 + 0.01, 0.01])
    assert target[1, 8].item() == target[2, 0].item() == pytest.approx(0.92)


def test_the_loss_is_the_weighted_mean_over_rows() -> None:
    class Model(torch.nn.Module):
        def forward(self, **_: object) -> object:
            return type("Output", (), {"logits": logits})

    torch.manual_seed(0)
    logits, weights = torch.randn(3, 4), torch.tensor([0.5, 2.0, 1.0, 2.0])
    target = torch.rand(3, 4).softmax(-1)
    trainer = SoftTargetTrainer.__new__(SoftTargetTrainer)
    trainer.class_weights = weights
    found = trainer.compute_loss(Model(), {"input_ids": None, "attention_mask": None, "targets": target})
    log_p = logits.double() - logits.double().exp().sum(1, keepdim=True).log()
    by_hand = [-sum(weights[c] * target[i, c] * log_p[i, c] for c in range(4)) for i in range(3)]
    assert found.item() == pytest.approx(float(sum(by_hand)) / 3, rel=1e-5)


def test_long_inputs_lose_their_middle() -> None:
    assert cut_ids([list(range(10)), [1, 2]], 4) == [[0, 7, 8, 9], [1, 2]]


def test_many_samples_of_a_new_type_weigh_what_an_old_type_does() -> None:
    rows = [Row(question="q", label=label) for label in [1] * 10 + [2] * 20 + [9] * 60]
    weights = row_weights(rows, 9)
    total = {n: sum(w for w, row in zip(weights, rows, strict=True) if row.label == n) for n in (1, 2, 9)}
    assert sum(weights) == pytest.approx(90) and total[9] == pytest.approx((total[1] + total[2]) / 2)
    assert weights[0] == pytest.approx(weights[10])
    assert row_weights(rows[30:], 9) == pytest.approx([1.0] * 60)
    assert row_weights(rows[:33], 9) == pytest.approx([1.0] * 33)
