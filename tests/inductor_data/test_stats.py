"""Counts and agreement against figures worked by hand, and the picture looked at as pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tam_plugin.cli.main import main
from tam_plugin.inductor.data.compare import compare
from tam_plugin.inductor.data.records import Record
from tam_plugin.inductor.data.stats import count_queries
from tam_plugin.taxonomy import TaskType


def write(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(record.to_json() + "\n" for record in records))
    return path


@pytest.fixture
def queries(tmp_path) -> Path:
    return write(
        tmp_path / "q.jsonl",
        [
            Record("1", "What is it?", ("a", "b"), 10.0, "X", label=1),
            Record("2", "What is it now, then, and later?", None, 59.9, "X", label=1, label2=2),
            Record("3", "Why?", None, 60.0, "Y|Z", label=7),
            Record("4", "Why " * 101, None, None, "X", label=7),
            Record("5", "Who?", None, 7200, ""),
        ],
    )


def test_counts(queries):
    values = count_queries([queries]).as_dict()
    assert (values["queries"], values["with_options"], values["with_label2"]) == (5, 1, 1)
    classes = values["classes"]
    assert list(classes) == [*(task.label for task in TaskType), "not labelled"]
    assert classes["Static Attributes Recognition"] == {"X": 2, "Y|Z": 0, "no name": 0}
    assert classes["Reasoning and Logic"] == {"X": 1, "Y|Z": 1, "no name": 0}
    assert classes["not labelled"] == {"X": 0, "Y|Z": 0, "no name": 1}
    words, seconds = values["question_words"], values["duration_s"]
    assert {k: v for k, v in words["histogram"].items() if v} == {"1-5": 3, "6-10": 1, "over 100": 1}
    assert (words["median"], words["largest"]) == (3, 101)
    assert {k: v for k, v in seconds["histogram"].items() if v} == {
        "0-15 s": 1,
        "30-60 s": 1,
        "60-180 s": 1,
        "3600 s and more": 1,
    }
    assert (seconds["median"], seconds["largest"], seconds["unknown"]) == (59, 7200, 1)


def test_command_prints_tables_and_writes_the_folder(queries, tmp_path, capsys):
    folder = tmp_path / "new" / "report"
    assert main(["data", "stats", str(queries), "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "| Static Attributes Recognition | 2 | 0 | 0 | 2 | 40.0 % |" in out
    assert "| Task type | X | Y\\|Z | no name | all | share |" in out
    assert "| all | 3 | 1 | 1 | 5 | 100.0 % |" in out
    assert sorted(p.name for p in folder.iterdir()) == ["stats.json", "stats.md", "stats.png"]
    assert (folder / "stats.md").read_text() == out
    assert main(["data", "stats", str(queries), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "stats.json").read_text())


def test_bars_are_as_long_as_their_counts_and_told_apart_in_grey(tmp_path):
    from tam_plugin.inductor.data.figure import draw_classes

    counts = {"A": 40, "B": 30, "C": 20}
    rows = [Record(f"{name}{n}", "Q?", dataset=name, label=5) for name, count in counts.items() for n in range(count)]
    rows += [Record(f"half{n}", "Q?", dataset="A", label=8) for n in range(45)]
    draw_classes(count_queries([write(tmp_path / "q.jsonl", rows)]), tmp_path / "f.png")
    with Image.open(tmp_path / "f.png") as picture:
        grey = picture.convert("L")
    width, height = grey.size
    lines = [bytes(grey.crop((0, y, width, y + 1)).tobytes()) for y in range(height)]
    darkest = bytes([38])
    # Label 8 is a bar of the first shade alone (45 of 90): half as long as the bar of label 5.
    dark = sorted({line.count(darkest) for line in lines if line.count(darkest) > width // 10})
    bar5, bar8 = dark[0], dark[-1]
    assert bar5 / bar8 == pytest.approx(40 / 45, rel=0.03)
    line = max((line for line in lines if abs(line.count(darkest) - bar5) < 3), key=lambda x: x.count(bytes([209])))
    assert line.count(bytes([209])) / bar5 == pytest.approx(30 / 40, rel=0.05)
    assert line.count(bytes([115])) / bar5 > 0.2, "the third shade shows between its hatches"


def test_agreement_of_two_taggers_by_hand(tmp_path):
    """20 + 15 of 50 agree, 5 and 10 do not: the worked example of Cohen's kappa, (0.7 - 0.5) / (1 - 0.5) = 0.4."""
    cells = {(1, 1): 20, (1, 2): 5, (2, 1): 10, (2, 2): 15}
    pairs = [pair for pair, count in cells.items() for _ in range(count)]
    first = [Record(str(n), f"{n}?", label=a, label2=b if n % 2 and a != b else None) for n, (a, b) in enumerate(pairs)]
    other = [Record(str(n), f"{n}?", label=b) for n, (_, b) in enumerate(pairs)]
    first += [Record("x", "x?", label=1), Record("y", "y?"), Record("z", "z?", label=3)]
    other += [Record("u", "u?", label=1), Record("v", "v?"), Record("y", "y?", label=3), Record("w", "w?")]
    files = write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl", other[::-1])
    done = compare([files[0]], files[1])
    assert (done.count, done.only_first, done.only_other, done.unlabelled) == (50, 2, 3, 1)
    assert done.agreement == pytest.approx(0.7) and done.kappa == pytest.approx(0.4)
    second = sum(1 for n, (a, b) in enumerate(pairs) if a != b and n % 2)
    assert done.agreement_label2 == pytest.approx((35 + second) / 50) and 0 < second < 15
    assert [row[:3] for row in done.confusion[:3]] == [[20, 5, 0], [10, 15, 0], [0, 0, 0]]
    assert sum(map(sum, done.confusion)) == 50
    assert [a.id for a, _ in done.disagreements] == [str(n) for n, (a, b) in enumerate(pairs) if a != b]


def test_comparison_is_printed_and_kappa_may_have_no_value(queries, tmp_path, capsys):
    same = write(tmp_path / "one.jsonl", [Record("1", "What is it?", label=1), Record("3", "Why?", label=2)])
    assert main(["data", "stats", str(queries), "--compare", str(same)]) == 0
    out = capsys.readouterr().out
    assert "2 queries labelled by both: agreement 0.5000" in out and "| 3 | 7 | 2 | Why? |" in out
    assert main(["data", "stats", str(queries), "--compare", str(same), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)["comparison"]
    assert [(d["id"], d["label"], d["other_label"]) for d in values["disagreements"]] == [("3", 7, 2)]
    assert values["only_first"] == 3
    write(same, [Record("1", "What is it?", label=1)])
    assert compare([queries], same).kappa is None
