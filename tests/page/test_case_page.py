"""The page's parts on figures worked by hand, and what it says in rarer cases."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tam_plugin import BudgetPolicy, TaskType, sample_frames
from tam_plugin.errors import InputError
from tam_plugin.page import Case, write_case
from tam_plugin.page.drawing import heatmap, text
from tam_plugin.taxonomy import TaskDistribution, TaskExtension

from .pages import Page


@given(st.text(alphabet=st.characters()) | st.text("<>&\"'$\x00\x1b\ud800\n", max_size=20))
def test_any_text_is_inert_and_comes_back(words):
    shown = text(words)
    assert not set("<>\"'") & set(shown)
    back = html.unescape(shown)
    assert len(back) == len(words)
    for said, read in zip(words, back, strict=True):
        assert read == said or (read in "\ufffd?" and (ord(said) < 0xA0 or 0xD800 <= ord(said) < 0xE000))
    assert shown.encode("utf-8").decode("utf-8") == shown  # a file can hold it


def test_heatmap_cells_are_as_dark_as_their_load():
    drawn = heatmap([[0.0, 0.5, 0.25, 0.25]], [[0.0, 0.5, 0.4, 0.6]], most=0.5)
    fills = [part.split('"')[0] for part in drawn.split("<rect ")[1:] for part in part.split('fill="')[1:2]]
    assert fills[0] == "#f7f9fc" and fills[1] == "#102a52"  # (247, 249, 252) and (16, 42, 82)
    # Half way: (131.5, 145.5, 167).
    assert fills[2] == fills[3] and [int(fills[2][i : i + 2], 16) for i in (1, 3, 5)] == [
        pytest.approx(131.5, abs=0.5),
        pytest.approx(145.5, abs=0.5),
        167,
    ]
    assert "layer 1, expert 3: 25.00% of the assignments, mean weight 0.400" in drawn


@pytest.fixture
def make_case(sample_clip):
    """A case of three frames; keyword arguments change it."""
    video = sample_frames(sample_clip, 3)
    policy = BudgetPolicy.from_yaml()

    def make(**changes):
        distribution = changes.pop("distribution", TaskDistribution.one_hot(TaskType.REASONING))
        values = {
            "query": "Why?",
            "distribution": distribution,
            "budget": policy.budget(distribution, video.info.duration_s, video_frames=3),
            "baseline": BudgetPolicy.fixed().budget(video_frames=3),
            "video": video,
            "prompt": "Why?",
            "prompt_tokens": 9,
            "answer": "Because.",
        }
        return Case(**{**values, **changes})

    return make


def test_rarer_cases_are_said(make_case, tmp_path):
    unsure = TaskDistribution((0.125,) * 8)
    case = make_case(distribution=unsure, context_tokens=100, answer="")
    assert case.budget.fallback and case.baseline.visual_tokens > 100
    page = html.unescape(write_case(case, tmp_path / "case.html").read_text(encoding="utf-8"))
    assert case.budget.fallback in page
    assert "The baseline does not fit: this model's context leaves 100 visual tokens" in page
    assert "an empty answer" in page and "no mixture layers" in page


def test_a_task_type_beyond_the_eight(make_case, tmp_path):
    extension = TaskExtension(label="Counting <sheep>", group="frames")
    distribution = TaskDistribution(TaskDistribution.one_hot(TaskType.REASONING).probabilities, extension, 0.75)
    page = Page(write_case(make_case(distribution=distribution), tmp_path / "case.html"))
    assert "Counting &lt;sheep&gt; (75.0%): its rule decides" in (tmp_path / "case.html").read_text(encoding="utf-8")
    rows = [attributes.get("class") for tag, attributes in page.tags if tag == "tr"][:9]
    widths = [a["style"] for tag, a in page.tags if tag == "div" and a.get("class") == "bar"]
    assert rows == [None] * 8 + ["chosen"]
    assert [float(style.removeprefix("width:").removesuffix("%")) for style in widths] == [*[0] * 6, 25, 0, 75]


def test_every_probability_has_its_bar(make_case, tmp_path):
    values = (0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.0078125)
    page = Page(write_case(make_case(distribution=TaskDistribution(values)), tmp_path / "case.html"))
    bars = [a["style"] for tag, a in page.tags if tag == "div" and a.get("class") == "bar"]
    assert [float(style.removeprefix("width:").removesuffix("%")) for style in bars] == [
        pytest.approx(100 * value, abs=0.005) for value in values
    ]
    assert [a.get("class") for tag, a in page.tags if tag == "tr"][:2] == ["chosen", None]


def test_a_page_that_cannot_be_written_leaves_the_old_one(make_case, tmp_path, monkeypatch):
    (tmp_path / "case.html").write_text("old")
    with pytest.raises(InputError, match="cannot be written"):
        write_case(make_case(), tmp_path / "no" / "case.html")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(InputError, match="no space left on device; free some space"):
        write_case(make_case(), tmp_path / "case.html")
    assert [path.name for path in tmp_path.iterdir()] == ["case.html"]
    assert (tmp_path / "case.html").read_text() == "old"
