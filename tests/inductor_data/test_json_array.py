"""Arrays that are read in pieces hold what the standard library reads whole, and fail where it fails."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tam_plugin.errors import InputError
from tam_plugin.inductor.data import json_array

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("arrays") / "data.json"


def outcome(file, text: str, window: int) -> tuple[str, object]:
    """What is read of a text in windows of so many characters, or the error's message."""
    file.write_bytes(text.encode())
    before, json_array.WINDOW_CHARS = json_array.WINDOW_CHARS, window
    try:
        return "values", list(json_array.read_array(file))
    except InputError as error:
        return "error", str(error)
    finally:
        json_array.WINDOW_CHARS = before


@settings(deadline=None, max_examples=150)
@given(st.lists(VALUES, max_size=4), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_values_are_those_of_the_whole(file, values, indent, ascii_only, window):
    """Compared as text, since NaN is no other NaN; half a surrogate pair stays half of one."""
    text = json.dumps(values, indent=indent, ensure_ascii=ascii_only)
    kind, found = outcome(file, text, window)
    assert kind == "values" and json.dumps(found) == json.dumps(json.loads(text))


@settings(deadline=None, max_examples=150)
@given(st.lists(VALUES, max_size=3), st.data(), st.integers(1, 40))
def test_errors_are_at_the_place_where_the_whole_fails(file, values, data, window):
    text = json.dumps(values)
    at = data.draw(st.integers(0, len(text)))
    text = text[:at] + data.draw(st.sampled_from(["", ",", '"', "]", "}", "x", "\\", "1"])) + text[at + 1 :]
    try:
        expected = json.loads(text)
    except json.JSONDecodeError as error:
        expected = error
    kind, found = outcome(file, text, window)
    if isinstance(expected, list):
        assert kind == "values" and json.dumps(found) == json.dumps(expected)
    elif isinstance(expected, json.JSONDecodeError) and text.lstrip().startswith("["):
        assert kind == "error" and f"character {expected.pos + 1})" in str(found)
    else:
        assert kind == "error"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "too deeply nested"),
        ('{"rows": []}', "must hold a JSON array of objects, found dict"),
        ("7", "must hold a JSON array of objects, found int"),
        ("", "Expecting value (element 1, character 1)"),
        ("[1, 2", "Expecting ',' delimiter (element 3, character 6)"),
        ("[1] 2", "Extra data"),
    ],
)
def test_what_is_no_array(file, text, message):
    assert message in str(outcome(file, text, 1 << 16)[1])


def test_a_large_array_takes_little_memory(file):
    """Twenty megabytes, one of them a single row; Python's own allocations are counted."""
    row = {"id": 1, "text": "word " * 200}
    file.write_text(json.dumps([*[row] * 19_000, {"text": "x" * (1 << 20)}]))
    assert file.stat().st_size > 19e6
    tracemalloc.start()
    try:
        assert sum(1 for _ in json_array.read_array(file)) == 19_001
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_a_syntax_error_ends_the_reading(file):
    """What follows an error is not gathered in memory on the chance that the value goes on."""
    file.write_text('[{"a": 1} {"b": 2},' + " " * (8 << 20) + "]")
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="Expecting ',' delimiter"):
            list(json_array.read_array(file))
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
