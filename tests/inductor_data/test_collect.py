"""Queries from instruction data, lists and tables: what is taken, what is left out, and in which form."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest

from tam_plugin.cli.main import main
from tam_plugin.errors import InputError
from tam_plugin.inductor.data.collect import CollectOptions, collect
from tam_plugin.inductor.data.columns import parse_columns
from tam_plugin.inductor.data.records import read_records
from tam_plugin.inductor.data.sources import Source, expand, sampled_rows
from tam_plugin.inductor.dataset import read_queries

CONVERSATION = [
    {"from": "human", "value": "<video>\nWhat does he hold?\nA. A cup\nB. A book\nAnswer with the option's letter."},
    {"from": "gpt", "value": "A"},
    {"from": "human", "value": "Why does he smile?"},
    {"from": "gpt", "value": "Because of the cup."},
]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_json(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows))
    return path


def write_lines(path: Path, rows: list) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("write", [write_json, write_lines])
def test_each_human_turn_of_a_video_row_is_a_query(tmp_path, write):
    rows = [
        {"id": "v1", "video": "a.mp4", "conversations": CONVERSATION},
        {"id": "i1", "image": "a.png", "conversations": CONVERSATION},
        {"id": "t1", "conversations": CONVERSATION},
        {"id": "v2", "video": "b.mp4", "conversations": [{"from": "human", "value": "<video>"}]},
        {"video": "c.mp4", "conversations": [{"role": "user", "content": "Where is it?"}]},
    ]
    source = write(tmp_path / ("talk.json" if write is write_json else "talk.jsonl"), rows)
    out = tmp_path / "out.jsonl"
    report = collect([str(source)], out)
    first, second, last = rows_of(out)
    assert first == {
        "id": "v1#1",
        "question": "What does he hold?",
        "options": ["A cup", "A book"],
        "duration_s": None,
        "dataset": "talk",
        "source": f"{source}:1",
    }
    assert (second["id"], second["question"], second["options"]) == ("v1#2", "Why does he smile?", None)
    assert (last["id"], last["source"]) == ("talk:5#1", f"{source}:5")
    assert (report.rows, report.kept) == (5, 3)
    assert report.left_out == {"rows of images": 1, "rows of text only": 1, "turns without a question": 1}
    assert "Because" not in out.read_text()
    assert collect([str(source)], out, CollectOptions(all_media=True)).kept == 7


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"question": "Q?", "candidates": ["x", "y"]}, ["x", "y"]),
        ({"QUERY": "Q?", "choices": '["x", "y"]'}, ["x", "y"]),
        ({"prompt": "Q?", "options": {"A": "x", "B": "y"}}, ["x", "y"]),
        ({"question": "Q?", "a1": "y", "a0": "x", "a10": "z", "answer": "y"}, ["x", "y", "z"]),
        ({"question": "Q?", "option_B": "y", "option_A": "x"}, ["x", "y"]),
        ({"question": "Q?", "options": ["A. x", "B. y"]}, ["x", "y"]),
        ({"question": "Q?", "options": [1, 2.5, None]}, ["1", "2.5"]),
        ({"question": "Q?\nA) x\nB) y"}, ["x", "y"]),
        ({"question": "Q?\nA) x\nB) y", "options": ["z"]}, ["z"]),
        ({"question": "Q?", "options": ""}, None),
        ({"question": "Q?"}, None),
    ],
)
def test_options_in_any_form(tmp_path, row, options):
    out = tmp_path / "out.jsonl"
    collect([str(write_lines(tmp_path / "in.jsonl", [row]))], out)
    assert [(r["question"], r["options"], r["id"]) for r in rows_of(out)] == [("Q?", options, "in:1")]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "json"])
def test_one_table_in_every_format(tmp_path, kind):
    table = [
        {"qid": "1", "video": "v", "question": 'Who says "yes",\nor no?', "a0": "he", "a1": "", "duration": "12.5"},
        {"qid": "2", "video": "w", "question": "Où est-il ?", "a0": "ici", "a1": "là", "duration": ""},
    ]
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        columns = {key: [row[key] for row in table] for key in table[0]}
        columns["duration"] = [12.5, None]
        columns["image"] = [b"\x89PNG", b"\x89PNG"]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    elif kind == "json":
        write_json(path, table)
    else:
        with open(path, "w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(table)
    out = tmp_path / "out.jsonl"
    collect([str(path)], out, CollectOptions(dataset="D", columns=parse_columns(["id=video,qid"])))
    records = [record for record, _, _ in read_records(out)]
    assert [r.id for r in records] == ["v_1", "w_2"]
    assert [r.question for r in records] == ['Who says "yes", or no?', "Où est-il ?"]
    assert [r.options for r in records] == [("he",), ("ici", "là")]
    assert [r.duration_s for r in records] == [12.5, None]
    assert [(r.dataset, r.source) for r in records] == [("D", f"{path}:1"), ("D", f"{path}:2")]


def test_labels_come_only_from_named_columns_and_are_what_training_reads(tmp_path):
    rows = [
        {"id": 1, "question": "A\u2028b?", "label": 4, "kind": "Reasoning and Logic", "also": 2, "options": ["x"]},
        {"id": 2, "question": "B?", "label": 0, "kind": "8", "also": None, "duration": 3},
    ]
    source, out = str(write_lines(tmp_path / "in.jsonl", rows)), tmp_path / "out.jsonl"
    collect([source], out)
    assert not any("label" in row for row in rows_of(out))
    collect([source], out, CollectOptions(columns=parse_columns(["label=kind", "label2=also"])))
    queries = read_queries(out)
    assert [(q.question, q.label, q.label2) for q in queries] == [("A b?", 7, 2), ("B?", 8, None)]
    assert [(q.options, q.duration_s, q.dataset) for q in queries] == [(("x",), None, "in"), (None, 3, "in")]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("all", list(range(1, 26))),
        ("first:10", list(range(1, 11))),
        ("first:999", list(range(1, 26))),
        ("end:10%", [23, 24, 25]),
        ("end:2", [24, 25]),
        ("first:1%", [1]),
    ],
)
@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_sampling_strategies(tmp_path, strategy, expected, kind):
    rows = [{"question": f"{n}?"} for n in range(25)]
    path = (write_json if kind == "json" else write_lines)(tmp_path / f"in.{kind}", rows)
    assert [number for number, _ in sampled_rows(Source(str(path), strategy))] == expected


def test_random_rows_follow_the_seed(tmp_path):
    path = str(write_lines(tmp_path / "in.jsonl", [{"question": f"{n}?"} for n in range(100)]))
    draws = [[n for n, _ in sampled_rows(Source(path, "random:20%"), seed=seed)] for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert all(len(set(draw)) == 20 and draw == sorted(draw) for draw in draws)


def test_a_list_and_a_pattern_name_the_same_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for part in (1, 2, 3):
        write_json(tmp_path / f"part_{part}.json", [{"id": f"p{part}r{n}", "question": f"{n}?"} for n in range(4)])
    write_json(tmp_path / "pictures.json", [{"image": "a.png", "conversations": CONVERSATION}])
    (tmp_path / "mix.yaml").write_text(
        "datasets:\n  - json_path: part_{1,2}.json\n    sampling_strategy: first:50%\n"
        "  - json_path: part_3.json\n  - json_path: pictures.json\n    sampling_strategy: all\n"
    )
    assert expand("part_{1, 3}.json") == [Source("part_1.json"), Source("part_3.json")]
    out = tmp_path / "out.jsonl"
    report = collect(["mix.yaml"], out)
    assert [r["id"] for r in rows_of(out)] == ["p1r0", "p1r1", "p2r0", "p2r1", "p3r0", "p3r1", "p3r2", "p3r3"]
    assert report.files == 4 and report.left_out == {"rows of images": 1}


def test_malformed_rows_are_skipped_on_request_and_listed(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    good = [json.dumps({"question": f"{n}?"}) for n in range(3)]
    source.write_text("\n".join([good[0], "{broken", "", "[1]", good[1], '{"question": 5}', good[2]]) + "\n")
    out = tmp_path / "out.jsonl"
    assert main(["data", "collect", str(source), "--out", str(out), "--skip-bad"]) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and len(lines) == 4
    for line, row in zip(lines[:3], (2, 4, 6), strict=True):
        assert f"{source}:{row}: " in line
    assert "1 file: 6 rows read, 3 queries kept, left out: 3 malformed rows" in lines[3]
    assert [r["source"] for r in rows_of(out)] == [f"{source}:{n}" for n in (1, 5, 7)]


@pytest.mark.parametrize(("ids", "expected"), [("prefixed", ["a/7", "b/7"]), ("row", ["a:1", "b:1"])])
def test_ids_that_clash_can_be_told_apart(tmp_path, ids, expected):
    files = [str(write_lines(tmp_path / f"{n}.jsonl", [{"id": 7, "question": "Q?"}])) for n in "ab"]
    out = tmp_path / "out.jsonl"
    with pytest.raises(InputError, match=r"'7' is at .*a\.jsonl:1 and at .*b\.jsonl:1; --ids prefixed"):
        collect(files, out)
    with pytest.raises(InputError, match="'7' is at"):
        collect([files[0], files[0]], out)
    assert not out.exists()
    collect(files, out, CollectOptions(ids=ids))
    assert [r["id"] for r in rows_of(out)] == expected


def test_streamed_files_are_not_held_in_memory(tmp_path):
    import tracemalloc

    source, rng = tmp_path / "in.jsonl", random.Random(0)
    with open(source, "w") as file:
        for n in range(4000):
            file.write(json.dumps({"id": n, "question": f"{n}?", "answer": rng.randbytes(2000).hex()}) + "\n")
    collect([str(source)], tmp_path / "warm.jsonl")
    tracemalloc.start()
    collect([str(source)], tmp_path / "out.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < source.stat().st_size / 4
