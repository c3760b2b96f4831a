"""Configuration that others wrote: refused in one line before it costs time or memory; what is plain is read."""

from __future__ import annotations

import json
import os

import pytest
import yaml

from tam_plugin.errors import InputError
from tam_plugin.files import MAX_YAML_BYTES, inside, read_json, read_yaml

from ..hostile import assert_refused, limited

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "line 1, column 5: &a0: anchors, aliases and merge keys are not taken here"),
        ("a: &a [*a]\n", "line 1"),
        ("base: &b {a: 1}\nother:\n  <<: *b\n", "line 1, column 7: &b"),
        ("<<: {a: 1}\n", "<<: anchors, aliases and merge keys"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3: the key 'c' stands twice"),
        ("a: " + "[" * 5000, "nested deeper than 32 levels"),
        ("a: !!python/object/apply:os.system [id]\n", "the tag"),
        ("a: !!bool x\n", "the tag"),
        ("a: 2026-01-01\n", "holds a date"),
        ("a: .nan\n", "finite numbers"),
        (f"a: 0x{'f' * 10_000}\n", "whole number"),
        ("a: [1\n", "line 2"),
        ('a: "\\ud800"\n', "half a character"),
        ("? [1, 2]\n: 3\n", "unhashable"),
        ("a: \x1b[31m\n", "special characters"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "a.yaml", what="some", error=InputError)
    assert words in str(caught.value) and "a.yaml" in str(caught.value) and str(caught.value).isprintable()


def test_plain_yaml_means_what_safe_load_says(tmp_path):
    text = "a: 1\nb: [1.5, true, null, 'x', ü]\nc:\n  - {d: 0x10}\n  - |\n    two\n    lines\n1: one\n'1': text\n"
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml", what="some") == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "JSON"),
        ('{"a":' * 50 + "1" + "}" * 50, "nested deeper than 32 levels"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "finite numbers"),
        ('{"a": 1e999}', "finite numbers"),
        (f'{{"a": {"9" * 5000}}}', "limit"),
        ('{"a": "\\ud800"}', "half a character"),
        ("[1]", "must hold a JSON object, found list"),
        ("\xff", "decode"),
    ],
)
def test_json_that_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "a.json")
    assert words in str(caught.value) and "a.json" in str(caught.value)


def test_records_of_runs_may_hold_nan_and_any_name(tmp_path):
    (tmp_path / "a.json").write_text('{"loss": NaN, "file": "\\udcff.mp4"}')
    values = read_json(tmp_path / "a.json", strict=False)
    assert values["loss"] != values["loss"] and values["file"] == "\udcff.mp4"


@pytest.mark.parametrize("name", ["pipe", "folder", "/dev/zero", "a\0b", "\ud800"])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for read in (read_json, lambda path: read_yaml(path, what="some", error=InputError)):
        with pytest.raises(InputError):
            read(tmp_path / name)


def test_a_file_is_read_up_to_its_bound(tmp_path):
    with (tmp_path / "big.yaml").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    done = limited(["plan", "x.mp4", "--query", "q", "--policy", tmp_path / "big.yaml"])
    assert_refused(done, "big.yaml", f"larger than {MAX_YAML_BYTES:,} bytes")
    (tmp_path / "big.json").write_text(json.dumps({"a": "x" * 100}))
    with pytest.raises(InputError, match="larger than 50 bytes"):
        read_json(tmp_path / "big.json", max_bytes=50)


@pytest.mark.parametrize("field", ["policy", "vision_encoder"])
def test_nested_aliases_end_at_once(tmp_path, field):
    lines = "".join(f"  {line}\n" for line in BOMB.splitlines())
    (tmp_path / "tam.yaml").write_text(f"{field}:\n{lines}")
    done = limited(["flops", "--preset", "llava-video-7b", "--config", tmp_path / "tam.yaml"], seconds=30)
    assert_refused(done, "tam.yaml", "line 2")


def test_names_inside_a_folder(tmp_path):
    root, outside = tmp_path / "model", tmp_path / "secret"
    root.mkdir()
    outside.write_text("")
    (root / "a.yaml").write_text("")
    (root / "link.yaml").symlink_to(outside)
    assert inside(root, "a.yaml") == root.resolve() / "a.yaml"
    for name in ("link.yaml", "../secret", str(outside), "~/a", "", ".", "sub/../../secret"):
        assert inside(root, name) is None
