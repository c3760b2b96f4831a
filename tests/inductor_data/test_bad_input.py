"""Bad input of ``tam data``: exit code 2, one line that names the file and row or value, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tam_plugin.cli.main import main

GOOD = {"id": "1", "question": "Where?", "label": 5}


@pytest.fixture
def bad(tmp_path, monkeypatch):
    """A working directory with files that are not what their names say."""
    monkeypatch.chdir(tmp_path)

    def put(name, *lines):
        (tmp_path / name).write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))

    put("good.jsonl", GOOD)
    put("other.jsonl", GOOD | {"question": "When?"})
    put("strange.jsonl", GOOD | {"id": "2"})
    put("twice.jsonl", GOOD, GOOD | {"id": "2"}, GOOD)
    put("label9.jsonl", GOOD, GOOD | {"id": "2", "label": 9})
    put("label_true.jsonl", GOOD | {"label": True})
    put("label2.jsonl", {"id": "1", "question": "Where?", "label2": 3})
    put("no_id.jsonl", {"question": "Where?"})
    put("no_question.jsonl", {"id": "1", "text": "Where?"})
    put("blank.jsonl", {"id": "1", "question": "  "})
    put("list.jsonl", GOOD, [1, 2])
    put("cut.jsonl", GOOD, '{"id": "2", "que')
    put("options.jsonl", GOOD | {"options": "yes or no"})
    put("duration.jsonl", GOOD | {"duration_s": -3})
    put("category.jsonl", {"question": "Where?", "duration": "short"})
    put("surrogate.jsonl", '{"id": "1", "question": "\\ud800?"}')
    put("object.json", {"id": "1"})
    put("text.json", "this is not JSON")
    put("deep.json", "[" * 100_000)
    put("empty_list.json", [])
    put("pictures.json", [{"image": "a.png", "conversations": [{"from": "human", "value": "Where?"}]}])
    put("speaker.json", [{"video": "a", "conversations": [{"from": "narrator", "value": "Where?"}]}])
    put("turns.json", [{"video": "a", "conversations": "Where?"}])
    put("wide.csv", "id,question", "1,Where?,and when?")
    put("narrow.csv", "id,question", "1")
    put("doubled.csv", "question,question", "a,b")
    put("headed.csv", "id,question")
    put("quote.csv", "id,question", '1,"Where')
    put("text.parquet", "this is not parquet")
    put("no_list.yaml", "files: [a.json]")
    put("broken.yaml", "datasets: [")
    put("strategy.yaml", "datasets:", "- json_path: good.jsonl", "  sampling_strategy: middle:3")
    put("zero.yaml", "datasets:", "- json_path: good.jsonl", "  sampling_strategy: end:0")
    put("entry.yaml", "datasets:", "- json_path: good.jsonl", "- sampling_strategy: all")
    put("blank_lines.jsonl", "", "")
    put("movie.mp4", "x")
    (tmp_path / "latin.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"id": "2", "question": "O\xf9?"}\n')
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jsonl")
    return tmp_path


RECORD_FILES = [
    ("missing.jsonl", "there is no file 'missing.jsonl'"),
    ("folder", "'folder' is a directory"),
    ("pipe.jsonl", "not a regular file"),
    ("empty.jsonl", "'empty.jsonl' is empty"),
    ("blank_lines.jsonl", "holds blank lines only"),
    ("twice.jsonl", "the id '1' is at twice.jsonl:1 and at twice.jsonl:3"),
    ("label9.jsonl", "label9.jsonl:2: label = 9: expected 1-8"),
    ("label_true.jsonl", "label = True"),
    ("label2.jsonl", "label2.jsonl:1: label2 is 3, but there is no label"),
    ("no_id.jsonl", "no_id.jsonl:1: the key 'id' is missing; found 'question'"),
    ("no_question.jsonl", "the key 'question' is missing; found 'id', 'text'"),
    ("blank.jsonl", "blank.jsonl:1: question must be text"),
    ("list.jsonl", "list.jsonl:2: expected a JSON object, found list"),
    ("cut.jsonl", "cut.jsonl:2: expected a JSON object"),
    ("options.jsonl", "options must be a list of texts or null, got 'yes or no'"),
    ("duration.jsonl", "duration.jsonl:1: duration_s = -3"),
    ("surrogate.jsonl", "surrogate.jsonl:1: the text '\\ud800?' contains a lone surrogate"),
    ("latin.jsonl", "latin.jsonl:2: not UTF-8"),
    ("text.parquet", "text.parquet:1: expected a JSON object"),
    ("", "name of a data file is empty"),
]

COLLECT = [
    (("missing.json",), "there is no file 'missing.json'"),
    (("folder",), "'folder' is a directory"),
    (("movie.mp4",), "unknown kind of file '.mp4'"),
    (("empty.jsonl",), "'empty.jsonl' is empty"),
    (("empty.csv",), "'empty.csv' is empty"),
    (("headed.csv",), "'headed.csv' is empty"),
    (("empty_list.json",), "'empty_list.json' is empty"),
    (("pictures.json",), "'pictures.json' holds no query (1 file: 1 rows read, 0 queries kept, left out: 1 rows of im"),
    (("list.jsonl",), "list.jsonl:2: expected a JSON object, found list"),
    (("cut.jsonl",), "cut.jsonl:2: expected a JSON object"),
    (("latin.jsonl",), "latin.jsonl:2: not UTF-8"),
    (("object.json",), "'object.json' must hold a JSON array of objects, found dict"),
    (("text.json",), "'text.json' cannot be read as JSON"),
    (("deep.json",), "'deep.json' cannot be read as JSON"),
    (("no_question.jsonl",), "no_question.jsonl:1: no column for the question (question, query, prompt, or --column"),
    (("good.jsonl", "--column", "question=q"), "good.jsonl:1: no column 'q' for the question; found 'id', 'question'"),
    (("good.jsonl", "--column", "answer=q"), "--column 'answer=q': expected ROLE=NAME"),
    (("good.jsonl", "--column", "label=a,b"), "label takes one column"),
    (("label9.jsonl", "--column", "label=label"), "label9.jsonl:2: unknown task type 9; expected 1-8"),
    (("blank.jsonl",), "blank.jsonl:1: the column 'question' must hold a question"),
    (("options.jsonl",), "options.jsonl:1: the column 'options' must hold a list or JSON text of one, got 'yes or no'"),
    (("category.jsonl",), "category.jsonl:1: the column 'duration' must hold seconds > 0 or nothing, got 'short'"),
    (("surrogate.jsonl",), "surrogate.jsonl:1: the text '\\ud800?' contains a lone surrogate"),
    (("speaker.json",), "speaker.json:1: a turn is from 'narrator'"),
    (("turns.json",), "turns.json:1: conversations must be a list of turns, got 'Where?'"),
    (("wide.csv",), "wide.csv:1: expected 2 fields, found 3"),
    (("narrow.csv",), "narrow.csv:1: expected 2 fields, found fewer"),
    (("doubled.csv",), "'doubled.csv' names a column twice"),
    (("quote.csv",), "'quote.csv', line 2: not a table with ','"),
    (("text.parquet",), "'text.parquet' cannot be read as parquet"),
    (("no_list.yaml",), "'no_list.yaml' must hold a list 'datasets'"),
    (("broken.yaml",), "'broken.yaml' is not valid YAML: line"),
    (("strategy.yaml",), "strategy.yaml, entry 1: sampling_strategy 'middle:3': expected all, first:N"),
    (("zero.yaml",), "zero.yaml, entry 1: sampling_strategy 'end:0'"),
    (("entry.yaml",), "entry.yaml, entry 2: expected a json_path"),
    (("part_{1,{2}}.json",), "must have one pair of braces"),
    (("part_{1,2}.json",), "there is no file 'part_1.json'"),
    (("twice.jsonl",), "the id '1' is at twice.jsonl:1 and at twice.jsonl:3"),
    (("good.jsonl", "--ids", "mine"), "ids = 'mine'"),
    (("good.jsonl", "--dataset", " "), "data set's name is empty"),
]


def refused(capsys, folder, argv, words):
    before = sorted(p.name for p in folder.rglob("*"))
    assert main(["data", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.startswith("tam data: ")
    assert words in captured.err
    assert sorted(p.name for p in folder.rglob("*")) == before


@pytest.mark.parametrize(("argv", "words"), COLLECT)
def test_collect(bad, capsys, argv, words):
    refused(capsys, bad, ["collect", *argv, "--out", "out.jsonl"], words)


@pytest.mark.parametrize("command", [("dedup", "--out", "out.jsonl"), ("stats",), ("stats", "good.jsonl", "--compare")])
@pytest.mark.parametrize(("name", "words"), RECORD_FILES)
def test_record_files(bad, capsys, command, name, words):
    refused(capsys, bad, [*command, name] if command[-1] == "--compare" else [command[0], name, *command[1:]], words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("dedup", "good.jsonl", "--out", "o", "--threshold", "0"), "threshold = 0.0: expected a Jaccard similarity"),
        (("dedup", "good.jsonl", "--out", "o", "--threshold", "1.01"), "threshold = 1.01"),
        (("dedup", "good.jsonl", "--out", "o", "--threshold", "nan"), "threshold = nan"),
        (("dedup", "good.jsonl", "--out", "o", "--num-perm", "8"), "num_perm = 8: expected 16-1024"),
        (("dedup", "good.jsonl", "--out", "./good.jsonl"), "must be three files"),
        (("dedup", "good.jsonl", "--out", "o", "--report", "o"), "must be three files"),
        (("dedup", "good.jsonl", "--out", "folder"), "the output 'folder' cannot be written: it is no file name"),
        (("dedup", "good.jsonl", "--out", "no/such/o"), "cannot be written: no such file or directory; check the name"),
        (("collect", "good.jsonl", "--out", "good.jsonl"), "'good.jsonl' is both read and written"),
        (("collect", "good.jsonl", "--out", ""), "the output '' cannot be written: it is no file name"),
        (("stats", "good.jsonl", "good.jsonl"), "the id '1' is at good.jsonl:1 and at good.jsonl:1"),
        (("stats", "good.jsonl", "--out", "cut.jsonl"), "report's folder 'cut.jsonl' cannot be made"),
        (("stats", "good.jsonl", "--out", ""), "report's folder has an empty name"),
        (("stats", "good.jsonl", "--compare", "strange.jsonl"), "have no labelled query in common (0 common ids"),
        (
            ("stats", "good.jsonl", "--compare", "other.jsonl"),
            "other.jsonl:1: the id '1' has the question 'When?' here",
        ),
    ],
)
def test_values(bad, capsys, argv, words):
    refused(capsys, bad, argv, words)


@pytest.mark.parametrize(
    ("package", "argv"),
    [
        ("datasketch", ("dedup", "good.jsonl", "--out", "o")),
        ("pyarrow", ("collect", "text.parquet", "--out", "o")),
        ("matplotlib", ("stats", "good.jsonl", "--out", "o")),
    ],
)
def test_a_missing_package_is_named(bad, capsys, monkeypatch, package, argv):
    monkeypatch.setitem(sys.modules, package, None)
    refused(capsys, bad, argv, f"needs the package '{package}'")


def test_the_parser_imports_none_of_the_packages():
    code = (
        "import sys; from tam_plugin.cli.main import build_parser; build_parser(); "
        "print([m for m in ('datasketch', 'pyarrow', 'matplotlib', 'torch', 'tqdm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
